"""SIGINT and SIGTERM end a training after the current step; a second signal ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from loralet.interrupts import Interrupted, Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_raised_at_once_or_deferred_to_the_next_check(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interrupts(), pytest.raises(Interrupted) as caught:
        os.kill(os.getpid(), number)
    assert caught.value.number == number
    with Interrupts() as interrupts:
        interrupts.check()
        interrupts.deferring = True
        os.kill(os.getpid(), number)
        assert interrupts.requested == number
        with pytest.raises(Interrupted):
            interrupts.check()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    script = (
        "import os\nfrom loralet.interrupts import Interrupts\n"
        "with Interrupts() as interrupts:\n    interrupts.deferring = True\n"
        f"    os.kill(os.getpid(), {int(number)})\n    print('deferred', flush=True)\n"
        f"    os.kill(os.getpid(), {int(number)})\n    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (128 + number, "deferred\n")


def test_other_threads_have_no_handlers() -> None:
    found: list[object] = []

    def enter() -> None:
        with Interrupts() as interrupts:
            found.append(interrupts.requested)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [None]
