"""Epochs of steps, an evaluation after each, and a checkpoint whenever one is due."""

import math
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice

from crosshead.data.base import Batch
from crosshead.train.checkpoint.saver import Saver
from crosshead.train.distributed.watchdog import Phase
from crosshead.train.events import BadNumbers, Callback, EvalRecord, EventRecord, StepRecord
from crosshead.train.loop.build import Training
from crosshead.train.loop.evaluate import evaluate
from crosshead.train.loop.lengths import Throughput
from crosshead.train.loop.loaders import DataLoaders
from crosshead.train.loop.signals import StopRequest
from crosshead.train.loop.steps import Requests, StepOutcome, TrainStep, describe_bad

_MOST_UNJUDGED = 3  # validations in a row without a judgement: weights that are not finite stay so


class Trainer:
    """Trains a run's state to the end of the recipe, or until it is asked to stop."""

    def __init__(
        self,
        training: Training,
        *,
        loaders: DataLoaders,
        saver: Saver,
        callback: Callback,
        stop: StopRequest,
    ) -> None:
        self.training, self.loaders, self.saver = training, loaders, saver
        self.callback, self.stop = callback, stop
        self.recipe, self.task, self.state = training.recipe, training.task, training.state
        self.lengths, self.world, self.watchdog = training.lengths, training.world, training.watchdog
        self.train_step = TrainStep(training)
        self.throughput = Throughput(training.lengths.steps_left(training.state.progress))
        self._named: set[str] = set()
        self._since = time.perf_counter()

    def fit(self) -> bool:
        """True when the last epoch is done, False when stopped before; either way the state is saved."""
        while not self.training.over:
            if not self.train_epoch():
                self._save()
                return False
            if not self._close_epoch():
                return False
        progress = self.state.progress
        if progress.validated != progress.step:  # the run was made shorter while it stood still
            if not self._validate():
                return False
            self._save()
        self._check_learned()
        self._check_judged(last=True)
        return True

    def elapsed(self) -> float:
        """Seconds that the run has taken so far, those before it was resumed included."""
        now = time.perf_counter()
        self.state.clock.elapsed += now - self._since
        self._since = now
        return self.state.clock.elapsed

    def _save(self) -> None:
        self.elapsed()
        self.saver.save(self.state)

    def _check_learned(self) -> None:
        """Raises ``BadNumbers`` where no step was taken: a short run may end before too many in a row were bad."""
        progress = self.state.progress
        if 0 < progress.step == progress.skipped_steps:
            raise BadNumbers(
                f"all {progress.step} steps were skipped, since no loss or gradient was finite: nothing was learned. "
                "events.jsonl names the images. Lower optimizer.lr, or train in bf16 or fp32"
            )

    def _check_judged(self, *, last: bool = False) -> None:
        """Raises ``BadNumbers`` where validations go on giving no judgement, or a run ends without any."""
        progress = self.state.progress
        if progress.unjudged >= _MOST_UNJUDGED or (last and progress.unjudged and progress.best_step is None):
            best = "no best" if progress.best_step is None else f"the best is of step {progress.best_step}"
            raise BadNumbers(
                f"the last validation, after step {progress.step}, and {progress.unjudged - 1} before it in a row were "
                f"no judgement ({best}); events.jsonl says why. Where predictions are not finite, lower "
                "optimizer.lr, clip harder, or train in bf16 or fp32"
            )

    def train_epoch(self) -> bool:
        """Take the epoch's remaining steps; False when asked to stop."""
        progress = self.state.progress
        self.training.network.train()
        for batches in self._groups():
            started = time.perf_counter()
            rate = self.training.set_rate(self.lengths.place(progress))
            events = self._broken_images(batches)
            outcome = self.train_step(batches, partial(self._requests, bool(events)))
            self._count(outcome)
            self.state.clock.images += outcome.images
            self.state.clock.seconds += time.perf_counter() - started + self._waited
            self._report(outcome, rate, batches, events)
            if outcome.requests.stop:
                self._tell_of_stop()
                return False
            if outcome.requests.save and progress.samples < self.lengths.samples_in(progress.epoch):
                self._save()
        if progress.samples < self.lengths.samples_in(progress.epoch) and self.stop.name is not None:
            self._tell_of_stop()  # while it was waiting for data
            return False
        return True

    def _tell_of_stop(self) -> None:
        why = "as asked" if self.stop.fault is None else f"since {self.stop.fault}"
        self._tell("signal", f"stopping after step {self.state.progress.step} {why}", name=self.stop.name)

    def _groups(self) -> Iterator[list[Batch]]:
        """The batches of one optimizer step at a time; the time spent waiting for them is in ``_waited``."""
        progress = self.state.progress
        samples = self.lengths.samples_in(progress.epoch)
        if progress.samples >= samples:
            return
        batches = iter(self.loaders.training(progress.epoch, progress.samples))
        while progress.samples < samples:
            started = time.perf_counter()
            self.watchdog.beat(progress.step, Phase.DATA)
            group = list(islice(batches, self.recipe.train.accumulation_steps))
            self._waited = time.perf_counter() - started
            if len(group) < self.recipe.train.accumulation_steps:
                return
            yield group

    def _requests(self, events: bool) -> Requests:
        self.watchdog.beat(self.state.progress.step, Phase.EXCHANGE)
        return Requests(
            stop=self.stop.name is not None,
            save=self.world.is_rank0 and self.saver.is_due(self.state.progress.step + 1),
            events=events,
        )

    def _count(self, outcome: StepOutcome) -> None:
        progress = self.state.progress
        progress.step += 1
        progress.samples += self.lengths.step_samples
        if outcome.skipped:
            progress.skipped_steps += 1
            progress.bad_steps += outcome.counts_as_bad
            progress.bad_in_a_row += outcome.counts_as_bad
        else:
            progress.bad_in_a_row = 0
            progress.epoch_loss += outcome.loss
            progress.epoch_steps += 1

    def _report(
        self, outcome: StepOutcome, rate: float, batches: list[Batch], events: list[EventRecord]
    ) -> None:
        """Tell the callbacks about the step. Raises where all processes agree that the run cannot go on."""
        progress = self.state.progress
        if outcome.counts_as_bad:
            events = [*events, *self._bad_step(outcome, batches)]
        if outcome.counts_as_bad or outcome.requests.events:
            self._share(events)
        self._hear_of_checkpoints()
        self.throughput.step(outcome.images)
        self.callback.on_step(
            StepRecord(
                step=progress.step,
                epoch=self.training.epochs,
                lr=rate,
                loss=outcome.loss,
                epoch_loss=progress.epoch_loss / progress.epoch_steps if progress.epoch_steps else math.nan,
                losses=outcome.losses,
                counts=outcome.counts,
                grad_norm=outcome.grad_norm,
                images_per_second=self.throughput.images_per_second,
                seconds_left=self.throughput.seconds_left,
                skipped=outcome.skipped,
                bad_steps=progress.bad_steps,
                broken_images=len(progress.broken),
            )
        )
        if progress.bad_in_a_row >= self.recipe.train.max_bad_steps:
            raise BadNumbers(
                f"{progress.bad_in_a_row} steps in a row had a loss or gradient that is not finite, the last one "
                f"step {progress.step}; events.jsonl names the images. Lower optimizer.lr, clip harder, or train in "
                "bf16 or fp32; the last checkpoint is from before"
            )

    def _bad_step(self, outcome: StepOutcome, batches: list[Batch]) -> list[EventRecord]:
        """This process's part of the report; a gradient alone does not say whose fault it was."""
        names = describe_bad(batches)
        what = "loss" if outcome.own_fault else "gradient"
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        place = f"step {self.state.progress.step} skipped: the {what} is not finite"
        message = f"{place} (process {self.world.rank}: {shown})"
        details = {"rank": self.world.rank, "what": what, "images": names}
        return [EventRecord("bad_step", message, self.state.progress.step, details)]

    def _broken_images(self, batches: list[Batch]) -> list[EventRecord]:
        """An event for every unreadable image that this run has not met yet."""
        known = set(self.state.progress.broken)
        fresh = {name: reason for batch in batches for name, reason in batch.skipped if name not in known}
        step = self.state.progress.step + 1
        return [
            EventRecord(
                "broken_image", f"{name} is left out: {reason}", step, {"image": name, "reason": reason}
            )
            for name, reason in fresh.items()
        ]

    def _share(self, events: list[EventRecord]) -> None:
        """Hand the events of all processes to rank 0's callbacks, and count the broken images everywhere."""
        progress, limit = self.state.progress, self.recipe.data.max_broken
        for event in (event for part in self.world.gather(events) for event in part):
            if event.kind == "broken_image":
                if event.details["image"] in progress.broken:
                    continue
                progress.broken.append(event.details["image"])
            self.callback.on_event(event)
        if len(progress.broken) > limit:
            raise ValueError(
                f"{len(progress.broken)} images of the training set cannot be read, more than data.max_broken "
                f"({limit}); the last one is {progress.broken[-1]}. `crosshead data check` lists them all"
            )

    def _close_epoch(self) -> bool:
        """Evaluate where it is due, move on to the next epoch and save; False when asked to stop meanwhile."""
        progress, train = self.state.progress, self.recipe.train
        last = progress.epoch + 1 == self.lengths.epochs
        if last or (progress.epoch + 1) % train.eval_every_epochs == 0:
            self._save()  # whatever becomes of the evaluation
            self._hear_of_checkpoints()
            if not self._validate():
                return False
        if not self.lengths.ends_within_epoch(progress):  # else more steps, asked for later, go on from there
            progress.next_epoch()
        if self.training.over and not last:
            self._tell(
                "note", f"training ends: {progress.since_best} evaluations in a row without a better one"
            )
        self._save()
        self._hear_of_checkpoints()
        self._check_judged()
        return True

    def _hear_of_checkpoints(self) -> None:
        gone = self.saver.lost_folder()
        if gone is not None and self.stop.fault is None:
            self.stop.ask(gone)
        for event in self.saver.poll():
            self.callback.on_event(event)

    def _validate(self) -> bool:
        progress, started = self.state.progress, time.perf_counter()
        held = self.loaders.validation
        eval_result = evaluate(
            self.task,
            self.state.evaluated_model,
            held.batches(),
            images=held.images,
            world=self.world,
            precision=self.recipe.train.precision,
            stopped=lambda: self.stop.name is not None,
            left_out=self._name_left_out,
            beat=partial(self.watchdog.beat, progress.step),
        )
        if eval_result is None:
            self._tell(
                "signal",
                "stopping in the middle of an evaluation, which will be repeated",
                name=self.stop.name,
            )
            return False
        metrics, primary = eval_result.metrics, self.task.primary
        # For all processes: where a best could not be written, the leading one alone knows that it is another.
        best = self.world.run_on_rank0(lambda: primary.selects(metrics, progress.best))
        progress.validated, progress.unjudged = (
            progress.step,
            progress.unjudged + 1 if eval_result.fault else 0,
        )
        progress.latest, progress.since_best = metrics, 0 if best else progress.since_best + 1
        if best:
            progress.best_step, progress.best, progress.details = progress.step, metrics, eval_result.details
        seconds = time.perf_counter() - started
        self.callback.on_eval(
            EvalRecord(
                progress.step,
                self.training.epochs,
                "validation",
                self.state.evaluated_weights,
                metrics,
                seconds,
                best,
            )
        )
        if eval_result.fault is not None:
            self._tell("no_judgement", f"this validation is no judgement: {eval_result.fault}")
        return True

    def _name_left_out(self, broken: list[tuple[str, str]]) -> None:
        """An event for every unreadable image of the validation split that was not named before."""
        for name, reason in broken:
            if name not in self._named:
                self._named.add(name)
                message = f"{name} of the validation split is left out: {reason}"
                self._tell("broken_image", message, image=name, reason=reason)

    def _tell(self, kind: str, message: str, **details: object) -> None:
        self.callback.on_event(EventRecord(kind, message, self.state.progress.step, details))
