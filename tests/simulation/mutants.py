"""Deliberate bugs: what each simpler coordinator, or simpler barrier, gets wrong. The simulation must find every one of them.

A mutant is one change of the text of one module, made while it is imported, in a process of its own.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug."""

    name: str
    rule: str
    """Of docs/rules.md, a promise of docs/guarantees.md, or a feature, that it breaks."""
    module: str
    old: str
    """Must stand there exactly once."""
    new: str


class _Loader(SourceFileLoader):
    def __init__(self, mutant: Mutant, path: str) -> None:
        super().__init__(mutant.module, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType | None:
        text = self.get_data(self.path).decode()
        if text.count(self._mutant.old) != 1:
            raise ImportError(f"mutant {self._mutant.name}: its text stands {text.count(self._mutant.old)} times in {self.path}, not once")
        return self.source_to_code(text.replace(self._mutant.old, self._mutant.new).encode(), self.path)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None
        assert spec.origin is not None
        loader: Any = _Loader(self._mutant, spec.origin)
        return importlib.machinery.ModuleSpec(fullname, loader, origin=spec.origin)


def infect(mutant: Mutant) -> None:
    """From now on the module is imported with the bug. It must not have been imported yet."""
    assert mutant.module not in sys.modules, f"{mutant.module} is imported already"
    sys.meta_path.insert(0, _Finder(mutant))


_FORWARD, _BACKWARD, _DECIDE = "coordinator.core.forward", "coordinator.core.backward", "coordinator.core.decide"
_RECORD, _ENGINE, _PENDING = "coordinator.core.record_steps", "coordinator.engine.engine", "coordinator.core.pending"
_LEASES = "coordinator.journal.leases"
_VERDICT, _DATABASE, _EXTERNAL = (
    f"participant_sdk.barrier.{name}" for name in ("verdict", "database_flow", "external_flow")
)  # fmt: skip

MUTANTS = (
    Mutant("effect-before-commit", "R25", _ENGINE, "                batch.append(append)\n", "                batch.append(append)\n                self._due += slot.take_due(self._clock.now())[0]\n"),
    Mutant("start-answered-before-commit", "P1", _ENGINE, "        self._starts_uncommitted += 1\n", "        self._starts_uncommitted += 1\n        slot.starts.clear()\n        answer(Started(plan=slot.plan, state=slot.state))\n"),
    Mutant("verb-answered-before-commit", "R25", _ENGINE, "        if slot.uncommitted:\n            slot.after_commit.append(lambda kept: answer(settled if kept else NotLive()))  # R25\n", "        if slot.uncommitted:\n            answer(settled)\n"),
    Mutant("nothing-withdrawn", "R12", _ENGINE, "            self._dispatcher.withdraw(state.saga_id, tuple(sorted(slot.released)))\n", "            pass\n"),
    Mutant("paused-saga-owes", "B12", _PENDING, "    if state.paused is not None:\n        return NOTHING\n    if state.has_ended", "    if state.has_ended"),
    Mutant("unsealed-rejection-believed", "R5", _FORWARD, "may_have_effect=step.in_doubt and not outcome.sealed", "may_have_effect=False"),
    Mutant("unknown-taken-for-failed", "P4", _FORWARD, "in_doubt = step.in_doubt or failed.outcome is AttemptOutcome.UNKNOWN", "in_doubt = False"),
    Mutant("exhausted-taken-for-failed", "R7", _FORWARD, "    if may_have_effect:\n        return StepUnknown", "    if False:\n        return StepUnknown"),
    Mutant("unknown-not-compensated", "R12", "coordinator.core.state", "frozenset({StepStatus.SUCCEEDED, StepStatus.UNKNOWN})", "frozenset({StepStatus.SUCCEEDED})"),
    Mutant("succeeded-not-compensated", "R12", "coordinator.core.state", "frozenset({StepStatus.SUCCEEDED, StepStatus.UNKNOWN})", "frozenset({StepStatus.UNKNOWN})"),
    Mutant("best-effort-not-compensated", "R12", _RECORD, "if step.status not in MAY_HAVE_EFFECT or not step.plan.is_compensated:", "if step.status not in MAY_HAVE_EFFECT or not step.plan.is_compensated or step.plan.kind is StepKind.BEST_EFFORT:"),
    Mutant("undone-in-any-order", "P3", _RECORD, "if not all(undone[successor] for successor in plan.successors[index]):", "if False:"),
    Mutant("successors-do-not-wait", "R14", _RECORD, "        if step.waits_for == 0 and state.cause", "        if step.waits_for >= 0 and successor not in state.ready and step.execute is None and state.cause"),
    Mutant("optional-step-forgotten", "R14", _RECORD, "    if step.plan.kind is StepKind.BEST_EFFORT:\n        let_successors", "    if False:\n        let_successors"),
    Mutant("pivot-in-doubt-turned-back", "R10", _BACKWARD, "    if pivot_may_have_effect(plan, state, now):", "    if False:"),
    Mutant("turned-back-past-the-pivot", "R10", "coordinator.core.point_of_no_return", "return state.steps[plan.pivot].status in (StepStatus.SUCCEEDED, StepStatus.SKIPPED)", "return False"),
    Mutant("refused-behind-the-pivot-taken-for-done", "R11", "coordinator.core.decide", "step.is_at_rest and step.plan.kind is not StepKind.BEST_EFFORT and", "step.is_at_rest and step.plan.kind not in (StepKind.BEST_EFFORT, StepKind.RETRIABLE) and"),
    Mutant("unknown-undo-taken-for-done", "R8", _BACKWARD, "    if isinstance(outcome, Compensated):\n        return (StepCompensated(attempt=reply.attempt, sent_at=reply.sent_at, handler_ran=outcome.handler_ran),)", "    if not isinstance(outcome, KeyExpired):\n        return (StepCompensated(attempt=reply.attempt, sent_at=reply.sent_at, handler_ran=True),)"),
    Mutant("compensated-before-it-is", "R15", _BACKWARD, "    if not state.is_quiet or any(step.status is StepStatus.COMPENSATING for step in state.steps):", "    if not state.is_quiet or all(step.status is StepStatus.COMPENSATING for step in state.steps):"),
    Mutant("completed-before-it-is", "P1", _DECIDE, "    if all(_is_done(step) for step in state.steps):\n        return _decide_completion", "    if any(_is_done(step) for step in state.steps):\n        return _decide_completion"),
    Mutant("hook-forgotten", "R16", _PENDING, "    if hook is None or hook_id is None:\n        return NOTHING", "    if True:\n        return NOTHING"),
    Mutant("key-per-attempt", "R1", _PENDING, "attempt.direction, attempt.round),", "attempt.direction, attempt.number),"),
    Mutant("undo-names-another-key", "R1", _PENDING, "Direction.EXECUTE, execute.round),", "Direction.EXECUTE, execute.number + 7),"),
    Mutant("backoff-never-ends", "P1", "coordinator.engine.slot", "            elif wake_at is None or call.not_before < wake_at:\n", "            elif False:\n"),
    Mutant("doubt-forgotten-at-recovery", "R29", _RECORD, "            step.in_doubt = True  # R29, R5", "            step.in_doubt = False"),
    Mutant("expired-acceptance-taken-for-failed", "R24", _FORWARD, "        StepUnknown(\n            attempt=step.accepted_attempt,\n            sent_at=None,", "        StepRejected(\n            sealed=False,\n            attempt=step.accepted_attempt,\n            sent_at=None,"),
    Mutant("accepted-taken-for-failed-at-turn-back", "R12", "coordinator.core.record", "            step.settle(StepStatus.UNKNOWN, at)  # at rest at once (R12)", "            step.settle(StepStatus.REJECTED, at)  # at rest at once (R12)"),
    Mutant("watch-with-a-gap", "R33", "coordinator.api.watch", "                if sequence > after:", "                if sequence > after and sequence != 2:"),
    Mutant("barrier-row-not-read", "R18", _DATABASE, "        row = await guard.lock(unit, fresh, call)\n        verdict = judge_execute", "        await guard.lock(unit, fresh, call)\n        row = None\n        verdict = judge_execute"),
    Mutant("reply-not-stored", "R18", _DATABASE, "            await unit.put_row(transitions.answered(row or fresh, outcome.response, call.completion_token, guard.clock()))\n", ""),
    Mutant("null-compensation-not-sealed", "R18", _DATABASE, "            await unit.commit()\n            return answers.compensated(handler_ran=False)", "            return answers.compensated(handler_ran=False)"),
    Mutant("rejection-sealed-in-word-only", "R5", _EXTERNAL, "        if claim.is_first:\n", "        if True:\n"),
    Mutant("missing-row-undone", "R18", _VERDICT, "return Undo(source=OutputSource.CLAIMED) if claimed else NothingToUndo()", "return Undo(source=OutputSource.CLAIMED if claimed else OutputSource.MISSING)"),
    Mutant("started-taken-for-nothing", "R19", _VERDICT, "    if row.execution in {ExecutionState.STARTED, ExecutionState.ACCEPTED} or", "    if row.execution in {ExecutionState.ACCEPTED} or"),
    Mutant("undone-twice", "R18", _VERDICT, "    if row.compensation is CompensationState.DONE:\n", "    if False:\n"),
    Mutant("claim-not-committed", "R19", _EXTERNAL, "            self._attempted = _Claim(row=claimed, is_first=verdict.is_first)\n            if row is not None:\n                await unit.put_row(claimed)\n            await unit.commit()\n", "            self._attempted = _Claim(row=claimed, is_first=verdict.is_first)\n"),
    Mutant("effect-forgotten-after-a-fault", "R19", _EXTERNAL, "            case HandlerFailed(status=status):\n                await finish(self._let_go(claim, forget=False))", "            case HandlerFailed(status=status):\n                await finish(self._let_go(claim, forget=claim.is_first))"),
    Mutant("completed-after-its-undo", "R24", _VERDICT, "        return NotAccepted()\n    if row.compensation is not CompensationState.NONE:\n        return Sealed()\n    match row.execution:\n        case ExecutionState.SEALED:\n            return Sealed()", "        return NotAccepted()\n    match row.execution:\n        case ExecutionState.SEALED:\n            return Complete()"),
    Mutant("executed-after-its-undo", "R18", _VERDICT, "        return Mismatch()\n    if row.compensation is not CompensationState.NONE:\n        return Sealed()\n    match row.execution:\n        case ExecutionState.SEALED:\n            return Sealed()", "        return Mismatch()\n    match row.execution:\n        case ExecutionState.SEALED:\n            return Run(is_first=False)"),
    Mutant("unavailable-taken-for-refused", "R6", "coordinator.codec.outcomes", "    Code.UNAVAILABLE: StatusMeaning.UNKNOWN,", "    Code.UNAVAILABLE: StatusMeaning.REJECTED,"),
    Mutant("too-late-taken-for-refused", "R6", "coordinator.codec.outcomes", "    Code.DEADLINE_EXCEEDED: StatusMeaning.UNKNOWN,", "    Code.DEADLINE_EXCEEDED: StatusMeaning.REJECTED,"),
    Mutant("id-of-the-client-ignored", "R2", "coordinator.api.requests", "SagaId(parse_saga_id(request.saga_id) if request.saga_id else new_saga_id())", "SagaId(new_saga_id())"),
    Mutant("key-of-a-start-forgotten", "R4", "coordinator.journal.settling", "    if holder is not None and holder.expires_at > start.created_at:", "    if False:"),
    Mutant("zombie-writes", "P6", "coordinator.journal.memory_journal", "        return held is not None and held.epoch == self._database.shards[shard].epoch", "        return True"),
    Mutant("lease-without-end", "R31", _LEASES, "        return self._clock.now() < self._current_until", "        return True"),
    Mutant("what-was-lost-is-kept", "R26", _ENGINE, "for slot in self.held.of_shards(shards)}", "for slot in self.held.of_shards(())}"),
    Mutant("taken-over-without-doubt", "R29", "coordinator.journal.ownership", "return held is not None and position > held.since", "return held is not None"),
    Mutant("sleepers-sleep-on", "D9", "coordinator.engine.sleepers", "        self._looks[shard] = _Look(Instant(0))\n        self._look_by(Instant(0))", "        pass"),
    Mutant("broken-stream-taken-for-not-sent", "R6", "coordinator.dispatcher.caller", "            return outcome_of_status(from_rpc_error(answer))\n        is_execution", "            from coordinator.core.inputs import NotSent\n            return NotSent(failure=Failure(Code.UNAVAILABLE, answer.details() or \"\"))\n        is_execution"),
    Mutant("deadline-past-the-pivot", "R13", _PENDING, "    if goes_forward_only(plan, state, step, in_doubt=step.in_doubt):\n        return None", "    if False:\n        return None"),
)  # fmt: skip
"""One per rule that can be seen from outside, and more."""

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
