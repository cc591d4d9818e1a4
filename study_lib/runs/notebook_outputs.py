"""What a notebook of the study may keep of its outputs: a flood is cut, and the notebook says so.

papermill writes the whole notebook again and again while it runs, so that outputs without a bound
cost time, memory and disk, however little of them anybody reads.
"""

from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

ENGINE = "study"
KEPT_BYTES = 16 * 2**20  # of all outputs of a notebook; the largest of the study keeps 6 MiB
KEPT_MESSAGES = 2_000
METADATA = "study"
BACKLOG_S = 20  # to take in what a finished cell has printed; a flood takes a while to be cut


class BudgetedClient(PapermillNotebookClient):  # type: ignore[misc]  # papermill has no types
    """Client that keeps the outputs of a notebook up to a budget, and errors always."""

    def __init__(self, nb_man: Any, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self._bytes = self._messages = self._cut = 0

    def output(
        self,
        outs: list[NotebookNode],
        msg: dict[str, Any],
        display_id: str | None,
        cell_index: int,
    ) -> NotebookNode | None:
        """Append an output to those of its cell, or a mark in place of the first that is cut."""
        size = _size_of(msg["content"])
        is_error = msg["msg_type"] == "error"
        fits = self._bytes + size <= KEPT_BYTES and self._messages < KEPT_MESSAGES
        if is_error or (fits and not self._cut):
            self._bytes += size
            self._messages += 1
            kept: NotebookNode | None = super().output(outs, msg, display_id, cell_index)
            return kept
        if not self._cut:
            text = (
                f"[outputs are cut from here: a notebook keeps {KEPT_BYTES // 2**20} MiB or "
                f"{KEPT_MESSAGES} messages; print less often, or save to a file]\n"
            )
            outs.append(new_output("stream", name="stderr", text=text))
        self._cut += size
        self.nb.metadata[METADATA] = {"outputs_cut_bytes": self._cut}
        return None


class BudgetedEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
    """papermill's engine, with a client that has a budget."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **settings: Any) -> Any:
        """Execute a notebook; settings are those of nbclient."""
        unused = {"input_path", "log_output", "stdout_file", "stderr_file"}
        kept = {name: value for name, value in settings.items() if name not in unused}
        startup = kept.pop("start_timeout", 60)
        timeout = kept.pop("execution_timeout", None)
        client = BudgetedClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=startup,
            timeout=timeout,
            iopub_timeout=BACKLOG_S,
            # In a flood the sockets drop messages, and the one that says "idle" may be among them;
            # the cell's own reply comes another way.
            raise_on_iopub_timeout=False,
            **kept,
        )
        return client.execute()


def outputs_cut_bytes(notebook: NotebookNode) -> int:
    """Return how many bytes of outputs an executed notebook did not keep."""
    return int(notebook.metadata.get(METADATA, {}).get("outputs_cut_bytes", 0))


def _size_of(content: dict[str, Any]) -> int:
    """Return about how many bytes a message adds to a notebook."""
    if "text" in content:
        return len(content["text"])
    data: dict[str, Any] = content.get("data") or {}
    return sum(
        len(value) if isinstance(value, str) else len(repr(value)) for value in data.values()
    )


papermill_engines.register(ENGINE, BudgetedEngine)
