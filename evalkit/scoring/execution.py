"""Runs planned work on a scorer: batches in parallel, within the memory there is, each kept as soon as it is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from evalkit.errors import EvalkitError, NonFiniteError
from evalkit.models.interfaces import DoneBatch, Encoding, Items, LocalNetwork, OutOfMemoryError
from evalkit.output.progress import progress
from evalkit.scoring.outputs import OutputTable
from evalkit.scoring.plan import Batch

Name = Callable[[int], str]
logger = logging.getLogger("evalkit")


def fill(table: OutputTable, items: Items, batches: Generator[DoneBatch]) -> None:
    """Put the items' batches into the table as they get done.

    Raises NonFiniteError, naming the item, where an output is not finite, and EvalkitError where vectors change their length on
    the way.
    """
    what = "scoring" if items.unit == "pair" else "embedding"
    started = time.perf_counter()
    with (
        progress(what, len(items), items.unit, int(table.known.sum())) as advance,
        closing(batches) as done,  # whatever happens, nothing runs on
    ):
        for batch in done:
            _refuse_non_finite(batch.outputs, batch.items, items.name)
            if table.width not in (None, batch.outputs[0].size):
                raise EvalkitError(
                    f"the vector of {items.name(int(batch.items[0]))} has {batch.outputs[0].size} numbers, those before it have "
                    f"{table.width}: has the server changed its model? cache=refresh scores all of them again"
                )
            lacking = int((~table.known[batch.items]).sum())
            table.add(batch.items, batch.outputs, batch.seconds, batch.lengths, batch.truncated)
            table.padding_tokens += batch.padding_tokens
            advance(lacking, sum(batch.lengths or ()))
    table.elapsed += time.perf_counter() - started


def network_batches(
    network: LocalNetwork, batches: Iterable[Batch], memory: Memory, name: Name
) -> Generator[DoneBatch]:
    """Run the batches, as many at once as the network is able to. Each is given as soon as it is done.

    Raises EvalkitError, naming the item, where one does not fit into memory alone.
    """
    with closing(_in_parallel(network, batches, memory, name)) as done:
        for batch, outputs, seconds in done:
            yield DoneBatch(
                batch.items,
                outputs,
                seconds,
                lengths=[len(encoding.token_ids) for encoding in batch.encodings],
                truncated=[encoding.truncated for encoding in batch.encodings],
                padding_tokens=batch.padded_tokens - batch.tokens if network.pads else 0,
            )


class Memory:
    """What is known of the device's memory: the most padded tokens that a batch may have, once one did not fit."""

    def __init__(self) -> None:
        self.most_tokens: int | None = None

    def run(self, network: LocalNetwork, encodings: Sequence[Encoding]) -> NDArray[np.float32]:
        """Run a batch, in parts where it is too large. Raises OutOfMemoryError where one input alone is."""
        outputs: list[NDArray[np.float32]] = []
        rest = encodings
        while rest:
            part = rest[: self._fitting(rest)]
            try:
                outputs.append(network.run(part))
            except OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._learn(_padded_tokens(part))
            else:
                rest = rest[len(part) :]
        return np.concatenate(outputs)

    def _fitting(self, encodings: Sequence[Encoding]) -> int:
        if self.most_tokens is None:
            return len(encodings)
        return max(1, self.most_tokens * len(encodings) // _padded_tokens(encodings))

    def _learn(self, tokens: int) -> None:
        """Halve the limit; another thread may already have lowered it further."""
        self.most_tokens = min(tokens // 2, self.most_tokens or tokens)
        logger.warning("out of memory with %d tokens in a batch; going on with half as many", tokens)


def _padded_tokens(encodings: Sequence[Encoding]) -> int:
    return len(encodings) * max(len(encoding.token_ids) for encoding in encodings)


def _in_parallel(
    network: LocalNetwork, batches: Iterable[Batch], memory: Memory, name: Name
) -> Generator[tuple[Batch, NDArray[np.float32], float]]:
    """Each batch with its outputs and the seconds that it took of the machine, in the order in which they get done."""

    def timed(batch: Batch) -> tuple[NDArray[np.float32], float]:
        started = time.perf_counter()
        outputs = memory.run(network, batch.encodings)
        return outputs, (time.perf_counter() - started) / network.parallel

    pool = ThreadPoolExecutor(network.parallel)
    running: dict[Future[tuple[NDArray[np.float32], float]], Batch] = {}
    try:
        for batch in batches:
            running[pool.submit(timed, batch)] = batch
            if len(running) > network.parallel:  # one waits, so that no thread ever does
                yield from _finished(running, name)
        while running:
            yield from _finished(running, name)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(
    running: dict[Future[tuple[NDArray[np.float32], float]], Batch], name: Name
) -> Iterator[tuple[Batch, NDArray[np.float32], float]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    in_order = [future for future in running if future in done]  # of the plan, so that an error repeats
    for future in sorted(
        in_order, key=lambda future: future.exception() is not None
    ):  # what is done is kept before one fails
        batch = running.pop(future)
        try:
            outputs, seconds = future.result()
        except OutOfMemoryError as error:
            longest = max(range(len(batch.items)), key=lambda row: len(batch.encodings[row].token_ids))
            raise EvalkitError(
                f"out of memory with one input alone, {name(int(batch.items[longest]))} ({len(batch.encodings[longest].token_ids)} "
                f"tokens): {str(error).splitlines()[0]}; try a smaller model.max_length, dtype=fp16 or bf16, or device=cpu"
            ) from error
        yield batch, outputs, seconds


def _refuse_non_finite(outputs: NDArray[np.float32], items: NDArray[np.int64], name: Name) -> None:
    finite = np.isfinite(outputs).reshape(len(outputs), -1).all(axis=1)
    if not finite.all():
        raise NonFiniteError(
            f"the model's output is not a finite number for {name(int(items[np.argmin(finite)]))}: NaN in the weights, or an "
            "overflow in fp16 (try dtype=bf16 or dtype=fp32)"
        )
