"""The one reader of the environment: everything that differs between a laptop and production."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from clara.errors import InvalidSettings
from clara.schedule import Schedule, schedule
from clara.types import Fusion, LatentForm, Mode, Rerank


class Settings(BaseSettings):
    """Read once at start from variables named `CLARA_<FIELD>`; frozen afterwards.

    A variable set to nothing is as one that is not set, as a container's list of them has it.
    An address left empty means: `clara up` starts an embedded server of that kind under `home`.
    """

    model_config = SettingsConfigDict(
        env_prefix="CLARA_", env_file=".env", frozen=True, extra="ignore"
    )

    home: Path = Path("var")
    """Folder for everything a machine can lose: embedded servers' data, indexes, models, logs."""

    # servers
    database_url: str = ""
    """Postgres, `postgresql://user:password@host:port/name`."""
    redis_url: str = ""
    """Redis or Valkey, `redis://host:port/0` or `redis+socket:///path`."""
    elasticsearch_url: str = ""
    """Elasticsearch 8 or 9, `http(s)://host:9200`; empty: Tantivy, in a folder under `home`."""
    elasticsearch_user: str = ""
    elasticsearch_password: SecretStr = SecretStr("")
    elasticsearch_api_key: SecretStr = SecretStr("")
    """Used instead of user and password when set."""
    elasticsearch_ca: Path | None = None
    """Certificate authority file for a TLS address."""
    index_timeout_s: float = Field(default=5.0, gt=0)
    """Seconds one search on Elasticsearch may take before `IndexUnavailable`."""
    dense_index: Literal["faiss", "elasticsearch"] = "faiss"
    """Where dense vectors are searched: in each worker's memory, or on the cluster."""
    dense_vectors: Literal["encoder", "latents"] = "encoder"
    """What makes them: the sentence encoder, or the mean row of the checkpoint's latents, for which
    one that compares row by row, as the default one does, was not trained."""
    latent_form: LatentForm = LatentForm.BF16
    """How new latents are kept: `bf16`, or `int8` in half the bytes. Both are read."""

    # listening
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=1, le=65535)
    api_processes: int = Field(default=1, ge=1, le=64)
    """Processes that share the API's port; one takes a processor core."""
    flower_host: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=1, le=65535)

    # models
    base_model: str = ""
    """Folder or Hub name of the causal language model; empty means the default one under `home`."""
    checkpoint: str = ""
    """CLaRa checkpoint folder; empty means the promoted one. Where none was promoted, the default
    base has a trained one of its own, and any other base an untrained one at `compression_rate`."""
    sentence_encoder: str = ""
    """Folder or Hub name of the sentence encoder; empty means the default one under `home`."""
    answerability: str = ""
    """Folder of an adapter with which the sentence encoder tells whether a passage answers a
    question; empty means the one that comes with the default encoder, and none for another."""
    compression_rate: int = Field(default=16, ge=1, le=256)
    """Tokens per latent vector of the untrained checkpoint; a trained one brings its own."""
    doc_max_length: int = Field(default=256, ge=16, le=4096)
    """Longest passage in tokens for the untrained checkpoint; a trained one brings its own."""
    checkpoints_in_memory: int = Field(default=2, ge=1, le=8)
    """Checkpoints a model worker holds at once. With two, the next one is loaded and its latents
    are made while the first one answers; with one, questions wait while it is exchanged."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto` takes the first GPU there is."""
    torch_threads: int = Field(default=0, ge=0)
    """Processor threads per process for torch; 0 leaves torch's own choice."""

    # answering
    bm25_top_k: int = Field(default=25, ge=1, le=1000)
    dense_top_k: int = Field(default=12, ge=1, le=1000)
    max_candidates: int = Field(default=50, ge=1, le=1000)
    """Upper bound of the union of lexical and dense hits."""
    fusion: Fusion = Fusion.UNION
    """How lexical and dense hits become one ranking, which `max_candidates` cuts."""
    rerank: Rerank | None = None
    """What ranks the candidates where a trained checkpoint has their latents; `fusion` does
    elsewhere. Empty means what the checkpoint asks for, which is `latent` where it says nothing."""
    latent_weight: float | None = Field(default=None, gt=0, le=100)
    """Of the latents' voice where `rerank` is `both`; words and dense vectors have 1 each. Empty
    means what was measured with the checkpoint, else 0.5: `scripts/bench_rerank.py` finds it on
    training data."""
    top_k: int = Field(default=5, ge=1, le=20)
    """Passages the generator reads."""
    min_score: float | None = Field(default=None, ge=-1, le=1)
    """Latent cosine under which a passage is not used; applies where latents alone rank. Empty
    means what was measured with the checkpoint, or 0.55 where it says nothing of it."""
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    """Cosine of dense vectors that one candidate must reach, or have nearly all words of the
    question, for there to be an answer. Empty means what was measured with the default encoder,
    and nothing with other vectors; -1 lets the model answer whatever is found."""
    min_mention: float | None = Field(default=None, ge=-1, le=1)
    """A name of the question that no passage read has must come as near as this to something in
    one, by the encoder's tokens, for there to be an answer. Empty and -1 as for `min_cosine`."""
    min_answerability: float | None = Field(default=None, ge=-1, le=1)
    """What the best passage read must reach, or the best three as one, 0 to 1, for there to be an
    answer, by the encoder's adapter. Empty means what was measured with it; -1 answers whatever
    passages say."""
    answer_mode: Mode = Mode.AUTO
    max_answer_tokens: int = Field(default=64, ge=1, le=4096)

    # training
    training_data: Path | None = None
    """Folder of the files that trainings name; empty means `training/data` under `home`."""
    training_nice: int = Field(default=10, ge=0, le=19)
    """How far the train worker stands back for other processes; 0 not at all."""
    training_threads: int = Field(default=0, ge=0)
    """Processor threads per process of a training; 0 is the machine's share of each."""
    training_processes: int = Field(default=0, ge=0)
    """Processes of a training, one per GPU; 0 is one, or what accelerate's configuration says."""
    training_accelerate_config: Path | None = None
    """File that `accelerate config` wrote, for several GPUs or hosts."""
    gate_margin: float = Field(default=0.02, ge=0, le=1)
    """How much worse than the active checkpoint, in fractions, one to be promoted may be."""

    # recompression
    generations_kept: int = Field(default=2, ge=1, le=10)
    """Generations of a collection whose latents stay, the active one among them."""
    recall_margin: float = Field(default=0.02, ge=0, le=1)
    """How far Recall@5 of a new generation may fall below the active one's, in fractions."""
    agreement_margin: float = Field(default=0.05, ge=0, le=1)
    """The same for how far answers from latents agree with answers from the text."""
    gate_passages: int = Field(default=100, ge=0, le=10_000)
    """Passages the recall gate asks for; 0 switches without asking."""
    gate_answers: int = Field(default=10, ge=0, le=1_000)
    """Questions among them that are also answered."""
    nightly: str = "0 2 * * *"
    """When every collection is looked through, as a cron expression; empty means never."""
    nightly_zone: str = "UTC"
    """Time zone of that expression, such as `Europe/Berlin`."""
    nightly_hours: float = Field(default=4.0, gt=0, le=24)
    """Hours after which a night pauses; the next one goes on."""
    audit_passages: int = Field(default=20, ge=0, le=10_000)
    """Passages of a collection that are told from their latents each night, and compared."""
    audit_threshold: float = Field(default=0.5, ge=0, le=1)
    """Share of numbers and names that a latent must keep, or its passage is served as text."""

    # limits
    max_body_bytes: int = Field(default=32 * 2**20, ge=1024)
    max_file_bytes: int = Field(default=20 * 2**20, ge=1024)
    max_documents_per_request: int = Field(default=500, ge=1)
    max_training_bytes: int = Field(default=2 * 2**30, ge=1024)
    """Of one file of training records."""
    max_document_chars: int = Field(default=2_000_000, ge=1)
    max_question_chars: int = Field(default=4_000, ge=1)
    max_question_tokens: int = Field(default=512, ge=1)

    # work
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    run_lease_s: float = Field(default=60.0, gt=0)
    """Seconds without a sign of life after which another worker may take a run over."""
    run_attempts: int = Field(default=3, ge=1)
    """Times a run is tried before it is failed for good."""
    reconcile_s: float = Field(default=15.0, gt=0)
    """Seconds between two rounds of the reconciler."""
    engine_task_s: float = Field(default=900.0, gt=0)
    """Seconds one piece of model work may take, such as loading, a batch or an answer; a worker in
    which one takes longer is stuck and ends itself, to be started again."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_unset(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Texts may be empty: an empty `nightly` says never."""
        texts = {name for name, field in cls.model_fields.items() if field.annotation is str}
        return {name: value for name, value in given.items() if value != "" or name in texts}

    @model_validator(mode="after")
    def _schedule_is_right(self) -> Self:
        schedule(self.nightly, self.nightly_zone)
        return self

    @property
    def nights(self) -> Schedule | None:
        """When nights are due; None: never."""
        return schedule(self.nightly, self.nightly_zone)

    @property
    def models(self) -> Path:
        """Folder of the default models."""
        return self.home / "models"

    @property
    def snapshots(self) -> Path:
        """Folder of dense indexes as they were, for a faster start."""
        return self.home / "snapshots"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints that trainings made."""
        return self.home / "checkpoints"

    @property
    def trainings(self) -> Path:
        """Folder of trainings, one below it for each run."""
        return self.home / "training"

    @property
    def training_files(self) -> Path:
        """Folder of the files that trainings name."""
        return self.training_data or self.trainings / "data"

    def variables(self) -> dict[str, str]:
        """The environment that gives these settings to another process."""
        values = {name: getattr(self, name) for name in type(self).model_fields}
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in values.items()
            if value is not None
        }
        return {_variable(name): str(value) for name, value in plain.items()}


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read at the first call.

    Raises:
        InvalidSettings: a variable has a value that cannot be; all of them are named.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [(_variable(str(f["loc"][0])), f["input"], f["msg"]) for f in error.errors()]
        told = "; ".join(f"{name} is {given!r}: {why}" for name, given, why in faults)
        remedy = "Change it in the environment or in .env, or leave it out"
        raise InvalidSettings(told, field=faults[0][0], remedy=remedy) from error


def _variable(name: str) -> str:
    return f"CLARA_{name.upper()}"
