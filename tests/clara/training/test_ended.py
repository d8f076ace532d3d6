from __future__ import annotations

import signal

from clara.training.ended import WORDS, last_words, signal_in

ONE = """step 3
Killing is near
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
  File "/lib/python3.11/site-packages/accelerate/commands/launch.py", line 1423, in <module>
    main()
subprocess.CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>.
"""
SEVERAL = """step 3
W1122 21:59 5 torch/distributed/elastic/multiprocessing/api.py:903] Sending process 9 SIGTERM
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Failures:
  exitcode  : -15 (pid: 9)  (SIGTERM)
Root Cause (first observed failure):
  exitcode  : {root} (pid: 10)
"""
OWN = """Traceback (most recent call last):
  File "train.py", line 3, in <module>
ValueError: by the training itself
"""


def test_the_signal_is_read_from_what_launchers_say() -> None:
    assert signal_in(ONE) is signal.SIGKILL
    assert signal_in(SEVERAL.format(root=-7)) is signal.SIGBUS
    assert signal_in(SEVERAL.format(root=1)) is None
    assert signal_in("failed (exitcode: -9) local_rank: 0 (pid: 7)") is signal.SIGKILL
    assert signal_in(OWN) is None
    assert signal_in("returned non-zero exit status 1.") is None


def test_last_words_are_the_trainings_own() -> None:
    assert last_words(ONE) == "step 3\nKilling is near"
    assert last_words(SEVERAL) == "step 3"
    assert last_words(OWN + ONE) == OWN + "step 3\nKilling is near"
    assert last_words(OWN) == OWN.rstrip()
    assert last_words("") == ""


def test_last_words_are_few() -> None:
    found = last_words("\n".join(f"line {number}" for number in range(100))).splitlines()
    assert found == [f"line {number}" for number in range(100 - WORDS, 100)]
