"""A client of the HTTP API, for the command line and the demo."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import httpx

from clara.errors import ClaraError
from clara.types import SourceDocument

Json = dict[str, Any]

WAIT_S = 20
"""Seconds of one long poll."""


class ApiProblem(ClaraError):
    """The API refused a request; carries its RFC 9457 problem."""

    def __init__(self, problem: Json) -> None:
        super().__init__(
            problem.get("detail") or problem.get("title") or "the request failed",
            field=problem.get("field"),
            limit=problem.get("limit"),
            remedy=problem.get("remedy"),
        )
        self.status = int(problem.get("status", 0))
        self.problem = problem


class ApiUnreachable(ClaraError):
    """Nothing answers at the API's address."""

    retryable = True


class Client:
    """Calls the API of one address; use it as a context manager."""

    def __init__(self, address: str, *, timeout_s: float = 60.0) -> None:
        self.address = address
        self._http = httpx.Client(base_url=address, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether the API and what it stands on answer."""
        try:
            return self._http.get("/readyz", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def create_collection(self, name: str, *, exist_ok: bool = False) -> None:
        """Make an empty collection; with `exist_ok`, one that is there is kept."""
        try:
            self._call("POST", "/v1/collections", json={"name": name})
        except ApiProblem as problem:
            if not (exist_ok and problem.status == httpx.codes.CONFLICT):
                raise

    def delete_collection(self, name: str) -> None:
        """Remove a collection and all that is in it; one that is not there is no error."""
        try:
            self._call("DELETE", f"/v1/collections/{name}")
        except ApiProblem as problem:
            if problem.status != httpx.codes.NOT_FOUND:
                raise

    def collection(self, name: str) -> Json:
        """Counts of documents, passages and latents."""
        return self._call("GET", f"/v1/collections/{name}")

    def write_documents(self, collection: str, documents: Sequence[SourceDocument]) -> Json:
        """Send documents; returns the run and what became of each."""
        body = [
            {
                "text": document.text,
                "title": document.title,
                "external_id": document.external_id,
                "source": document.source,
                "metadata": document.metadata,
            }
            for document in documents
        ]
        return self._call(
            "POST", f"/v1/collections/{collection}/documents", json={"documents": body}
        )

    def ask(self, collection: str, question: str, **options: Any) -> Json:
        """Ask and wait for the end of the run; returns the question with its answer.

        Raises:
            ApiProblem: the question was refused, or its run failed.
        """
        asked = self._call(
            "POST",
            "/v1/questions",
            json={"collection": collection, "question": question, **options},
        )
        return self._ended(asked["id"])

    def search(self, collection: str, question: str, **options: Any) -> Json:
        """Find passages and wait for them; returns the search with its explanation.

        Raises:
            ApiProblem: the search was refused, or its run failed.
        """
        found = self._call(
            "POST",
            f"/v1/collections/{collection}/search",
            params={"wait": WAIT_S},
            json={"question": question, **options},
        )
        return found if found["status"] == "succeeded" else self._ended(found["id"])

    def audit(self, *, document: str | None = None, collection: str | None = None) -> Json:
        """What is left of a document, or of a collection's deleted documents."""
        of = f"documents/{document}" if document else f"collections/{collection}"
        return self._call("GET", f"/v1/{of}/audit")

    def runs(self, **filters: Any) -> list[Json]:
        """Newest runs first."""
        wanted = {key: value for key, value in filters.items() if value is not None}
        found: list[Json] = self._call("GET", "/v1/runs", params=wanted)["runs"]
        return found

    def run(self, run_id: str) -> Json:
        """One run."""
        return self._call("GET", f"/v1/runs/{run_id}")

    def nights(self, *, limit: int = 20) -> Json:
        """The newest nights, the schedule, and when the next one is due."""
        return self._call("GET", "/v1/nights", params={"limit": limit})

    def night(self, night_id: str) -> Json:
        """One night with its report."""
        return self._call("GET", f"/v1/nights/{night_id}")

    def traceback(self, run_id: str) -> str | None:
        """Where in the program a run failed last."""
        found: str | None = self._call("GET", f"/v1/runs/{run_id}/traceback")["traceback"]
        return found

    def cancel(self, run_id: str) -> Json:
        """Cancel a run. Raises ApiProblem where it has ended."""
        return self._call("POST", f"/v1/runs/{run_id}/cancel")

    def retry(self, run_id: str) -> Json:
        """Queue a run again. Raises ApiProblem where that makes no sense."""
        return self._call("POST", f"/v1/runs/{run_id}/retry")

    def retry_failed(self, **filters: Any) -> Iterator[Json]:
        """Queue failed runs again, all that the filters name; yields the counts page by page."""
        body = {key: value for key, value in filters.items() if value is not None}
        while True:
            page = self._call("POST", "/v1/runs/retry", json=body)
            yield page
            if page["next"] is None:
                return
            body["after"] = page["next"]

    def checkpoints(self) -> list[Json]:
        """All checkpoints, newest first."""
        found: list[Json] = self._call("GET", "/v1/checkpoints")["checkpoints"]
        return found

    def register_checkpoint(self, path: str, *, base: str = "") -> str:
        """Have a checkpoint's folder looked through and written down; returns its id.

        Raises:
            ApiProblem: it was refused, or is damaged.
        """
        body = {"path": path, "base": base}
        run = self.ended(self._call("POST", "/v1/checkpoints", json=body)["run_id"])
        return str(run["result"]["checkpoint_id"])

    def score_checkpoint(self, checkpoint_id: str, scores: Json) -> Json:
        """Keep an evaluation's numbers with a checkpoint."""
        return self._call("POST", f"/v1/checkpoints/{checkpoint_id}/scores", json=scores)

    def promote(self, checkpoint_id: str, *, force: bool = False, reason: str = "") -> Json:
        """Let a checkpoint serve. Raises ApiProblem where the gate refuses it."""
        body = {"force": force, "reason": reason}
        return self._call("POST", f"/v1/checkpoints/{checkpoint_id}/promote", json=body)

    def plan_recompression(
        self, collection: str, *, checkpoint: str | None = None, rebuild_indexes: bool = False
    ) -> Json:
        """What a recompression would do, and what it would cost."""
        body = {"checkpoint": checkpoint, "dry_run": True, "rebuild_indexes": rebuild_indexes}
        return self._call("POST", f"/v1/collections/{collection}/recompressions", json=body)

    def recompress(
        self,
        collection: str,
        *,
        checkpoint: str | None = None,
        gate: bool = True,
        rebuild_indexes: bool = False,
    ) -> str:
        """Bring a collection's latents up to a checkpoint; returns the run's id."""
        body = {"checkpoint": checkpoint, "gate": gate, "rebuild_indexes": rebuild_indexes}
        queued = self._call("POST", f"/v1/collections/{collection}/recompressions", json=body)
        return str(queued["run_id"])

    def generations(self, collection: str) -> Json:
        """All generations of a collection, the newest first, and whether it is held."""
        return self._call("GET", f"/v1/collections/{collection}/generations")

    def roll_back(self, collection: str, *, to: int | None = None) -> Json:
        """Answer from an earlier generation again. Raises ApiProblem where there is none."""
        return self._call("POST", f"/v1/collections/{collection}/rollback", json={"to": to})

    def ended(self, run_id: str) -> Json:
        """A run that has succeeded; waits for it.

        Raises:
            ApiProblem: it failed or was cancelled.
        """
        while True:
            run = self._call("GET", f"/v1/runs/{run_id}", params={"wait": WAIT_S})
            if run["status"] == "succeeded":
                return run
            if run["status"] in ("failed", "cancelled"):
                error = run.get("error") or {"message": f"the run was {run['status']}"}
                raise ApiProblem(error | {"detail": error.get("message")})

    def watch(self, collection: str, *, every_s: float = 0.5) -> Iterator[Json]:
        """The collection's counts, again and again; watching takes a tenth of the time at most."""
        while True:
            began = time.monotonic()
            counts = self.collection(collection)
            took = time.monotonic() - began
            yield counts
            time.sleep(max(every_s, 9 * took))

    def _ended(self, question_id: str) -> Json:
        """Wait for the end of a question's run."""
        while True:
            path = f"/v1/questions/{question_id}"
            state = self._call("GET", path, params={"wait": WAIT_S})
            if state["status"] == "succeeded":
                return state
            if state["status"] in ("failed", "cancelled"):
                error = state.get("error") or {"message": f"the run was {state['status']}"}
                raise ApiProblem(error | {"detail": error.get("message")})

    def _call(self, method: str, path: str, **request: Any) -> Json:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ApiUnreachable(
                f"no answer from {self.address}: {error or type(error).__name__}",
                field="CLARA_API_PORT",
                remedy="Start the system with `clara up` (or `make up`), or give the address of a "
                "running one with --api.",
            ) from error
        if response.is_error:
            raise ApiProblem(_problem(response))
        result: Json = response.json()
        return result


def _problem(response: httpx.Response) -> Json:
    try:
        problem: Json = response.json()
    except ValueError:
        problem = {"detail": response.text[:500] or response.reason_phrase}
    return {"status": response.status_code} | problem
