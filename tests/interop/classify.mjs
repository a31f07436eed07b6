// Classify the texts of standard input with transformers.js and with onnxruntime-node, and print all scores as JSON.
// Arguments: the folder of the packages, the folder of the export, the value of dtype, and the name of the graph.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [packages, folder, dtype, graph] = process.argv.slice(2);
const require = createRequire(path.join(packages, "..", "index.js"));
const { env, pipeline, AutoTokenizer } = await import(pathToFileURL(require.resolve("@huggingface/transformers")));
const ort = require("onnxruntime-node");
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);
const name = path.basename(folder);
const texts = JSON.parse(readFileSync(0, "utf8"));

const classify = await pipeline("text-classification", name, { dtype });
const scores = await classify(texts, { top_k: null });

const tokenizer = await AutoTokenizer.from_pretrained(name);
const encoded = await tokenizer(texts, { padding: true, truncation: true });
const inputs = Object.entries(encoded).map(([key, { dims, data }]) => [key, new ort.Tensor("int64", data, dims)]);
const session = await ort.InferenceSession.create(path.join(folder, graph));
const logits = {};
for (const [kind, kept] of [["all", inputs], ["without types", inputs.filter(([key]) => key !== "token_type_ids")]]) {
  const found = (await session.run(Object.fromEntries(kept))).logits;
  logits[kind] = { dims: found.dims, data: Array.from(found.data) };
}
const keys = inputs.map(([key]) => key);
console.log(JSON.stringify({ scores, logits, keys, longest: encoded.input_ids.dims[1] }));
