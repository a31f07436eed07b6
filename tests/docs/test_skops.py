"""skops and a classifier, as docs/guides/python.md describes it, where skops is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from models import make_pair

from loralet import TextClassifier, load


def test_skops_stores_the_parameters_and_save_the_fitted_classifier(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    make_pair(tmp_path / "model")
    texts, labels = ["a b c", "x y z"] * 8, ["first", "second"] * 8
    classifier = TextClassifier(str(tmp_path / "model"), rank=2, steps=2)
    stored = skops.dumps(classifier)
    assert skops.get_untrusted_types(data=stored) == ["loralet.classifier.TextClassifier"]
    loaded = skops.loads(stored, trusted=["loralet.classifier.TextClassifier"])
    assert loaded.get_params() == classifier.get_params()
    classifier.fit(texts, labels)
    with pytest.raises(Exception, match=r"construct|support|type"):
        skops.dumps(classifier)
    classifier.save(tmp_path / "saved")
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} <= {".json", ".safetensors", ".md"}
    np.testing.assert_array_equal(load(tmp_path / "saved").predict_proba(texts), classifier.predict_proba(texts))
