"""Sentences a person reads in place of an answer, or beside one."""

NOTHING_FOUND = "The documents of this collection do not answer this question."
"""Said without asking the model, when no passage is left to read."""

NOT_IN_DOCUMENTS = "The documents do not answer this question."
"""The same, of documents that came with the question; what a trained generator says too."""

NOT_MENTIONED = 'No passage that was found mentions "{name}".'
"""Beside the same: why."""

NOT_ANSWERED = "Passages were found that are near this question; none of them looks like an answer."
"""The same, where each was read together with the question."""

UNTRAINED = (
    "The checkpoint is untrained: its latents carry no meaning yet, so an answer made from them "
    "is not worth reading. Text mode reads the passages themselves."
)

UNTRAINED_TEXT = (
    "The checkpoint is untrained: passages were ranked without it, whatever their score, and read "
    "as text."
)

NO_ENCODER = "No sentence encoder is at hand: passages were found by the words they share."

WITHOUT_DOCUMENTS = "No passage scored enough: the model answered without the documents."

UNSUPPORTED = (
    "No sentence of the passages that were read supports the model's answer, so it is withheld."
)

DENSE_SNAPSHOTS = "dense snapshots"
"""What an audit calls the files that only make a start faster."""

REBUILD = (
    "Have it made anew from the record: `clara recompress -c COLLECTION --rebuild-indexes`; "
    "questions go on meanwhile."
)
"""What to do about a lexical index that is damaged, or that another release made."""


def is_refusal(answer: str) -> bool:
    """Whether an answer is one of the sentences that say there is none."""
    return answer.strip() in (NOT_IN_DOCUMENTS, NOTHING_FOUND)
