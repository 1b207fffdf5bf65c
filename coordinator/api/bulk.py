"""The same thing done to every saga that a filter finds: bounded, looked at first, and one saga's refusal stops nobody."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import grpc

from coordinator.api.caller import FORWARDED
from coordinator.api.checks import find_in_numbers, find_in_person, find_in_saga_id, refuse_if_any
from coordinator.api.errors import RefusedError, refusal, refusal_of_command, status_of
from coordinator.api.forwarding import TIME_LIMIT_S, Forwarding
from coordinator.api.saga_commands import SagaCommands, set_aside
from coordinator.api.selections import selected_sagas
from coordinator.api.views import SagaView, SagaViews
from coordinator.api.waits import closing
from coordinator.codec.sagas import saga_summary, stored_summary
from coordinator.core.decide import decide
from coordinator.core.errors import CommandRefusedError
from coordinator.core.inputs import Cancel, Command, Pause, Resume, RetryStep, Terminate
from coordinator.core.values import IncidentKind, SagaId
from coordinator.engine.commands import CommandRefused
from coordinator.engine.engine import Engine
from coordinator.engine.ports import Journal, JournalUnavailableError, SagaFilter, StoredSaga
from participant_sdk.definitions.problems import Problem
from participant_sdk.ids import parse_saga_id
from participant_sdk.rpc_errors import ErrorReason, error_reason, from_rpc_error
from saga.v1 import operator_pb2, operator_pb2_grpc, saga_pb2

SAGAS_MAX: Final = 10_000
"""Sagas that one call does something to; more are refused before anything is done."""
PAGE_SAGAS: Final = 1_000
"""Rows that are read at once."""
AT_ONCE: Final = 32
"""Sagas that something is done to at the same time: enough to share commits, too few to crowd out the others."""

_Answer = operator_pb2.ActOnSagasResponse


class _Act(NamedTuple):
    """What one saga became, or why it was not done."""

    saga: saga_pb2.Saga
    error: Exception | None


class BulkActions:
    """Does the same to many sagas. If the caller goes away, what was not begun is not done."""

    def __init__(self, *, engine: Engine, journal: Journal, views: SagaViews, commands: SagaCommands, forwarding: Forwarding) -> None:
        self._forwarding = forwarding
        self._engine = engine
        self._journal = journal
        self._views = views
        self._commands = commands

    async def act(self, request: operator_pb2.ActOnSagasRequest, *, passes_on: bool = False) -> AsyncIterator[_Answer]:
        """One answer per saga, in the order of the list. Ends with an error if the database goes away: the rest was not done.

        `passes_on`: has other nodes act on the sagas that they drive.
        """
        refuse_if_any(_find_problems(request))
        found = {stored.saga_id: stored for stored in await self._find(selected_sagas(request.selection))}
        # Only what somebody was shown: a saga that came to be selected since is left alone.
        sagas = list(found) if request.dry_run else list(dict.fromkeys(SagaId(parse_saga_id(one)) for one in request.saga_ids))
        for start in range(0, len(sagas), AT_ONCE):
            if self._engine.is_closing:
                raise closing()
            acts = await self._act_on_some(request, sagas[start : start + AT_ONCE], found, passes_on=passes_on and not request.dry_run)
            for done in acts:
                error = None if done.error is None else status_of(done.error, "ActOnSagas")
                yield _Answer(saga=done.saga, error=error, found=len(sagas))
            _raise_if_unavailable(acts)

    async def _find(self, where: SagaFilter) -> Sequence[StoredSaga]:
        """The rows of all sagas that the filter finds; refuses if there are too many."""
        found: list[StoredSaga] = []
        while True:
            before = (found[-1].created_at, found[-1].saga_id) if found else None
            page = await self._journal.list_sagas(where, before, PAGE_SAGAS)
            found.extend(page)
            if len(found) > SAGAS_MAX:
                message = f"more than {SAGAS_MAX} sagas are found; narrow the selection, for instance by created_from and created_before"
                raise refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.SELECTION_TOO_LARGE, message)
            if len(page) < PAGE_SAGAS:
                return found

    async def _act_on_some(
        self, request: operator_pb2.ActOnSagasRequest, sagas: Sequence[SagaId], found: Mapping[SagaId, StoredSaga], *, passes_on: bool
    ) -> Sequence[_Act]:
        acts: dict[SagaId, _Act] = {}
        elsewhere: dict[str | None, list[SagaId]] = {}
        for saga_id in sagas:
            try:
                address = await self._forwarding.address_of(saga_id) if passes_on else None
            except (RefusedError, JournalUnavailableError) as error:
                acts[saga_id] = _Act(saga_pb2.Saga(id=saga_id), error)
            else:
                elsewhere.setdefault(address, []).append(saga_id)
        here = elsewhere.pop(None, [])
        told = [self._act_elsewhere(request, address, some) for address, some in elsewhere.items() if address is not None]
        for answers in await asyncio.gather(*told):
            acts |= answers
        acts |= zip(here, await asyncio.gather(*(self._act_on(request, saga_id, found) for saga_id in here)), strict=True)
        return [acts[saga_id] for saga_id in sagas]

    async def _act_elsewhere(self, request: operator_pb2.ActOnSagasRequest, address: str, sagas: Sequence[SagaId]) -> Mapping[SagaId, _Act]:
        asked = operator_pb2.ActOnSagasRequest()
        asked.CopyFrom(request)
        asked.saga_ids[:] = sagas
        acts: dict[SagaId, _Act] = {}
        service: operator_pb2_grpc.OperatorServiceAsyncStub = operator_pb2_grpc.OperatorServiceStub(self._forwarding.channel_to(address))
        try:
            async for answer in service.ActOnSagas(asked, timeout=TIME_LIMIT_S, metadata=((FORWARDED, "1"),)):
                acts[SagaId(answer.saga.id)] = _Act(answer.saga, RefusedError(answer.error) if answer.HasField("error") else None)
        except grpc.aio.AioRpcError as error:
            refused = RefusedError(from_rpc_error(error))
            return {saga_id: _Act(saga_pb2.Saga(id=saga_id), refused) for saga_id in sagas} | acts
        return acts

    async def _act_on(self, request: operator_pb2.ActOnSagasRequest, saga_id: SagaId, found: Mapping[SagaId, StoredSaga]) -> _Act:
        saga = saga_pb2.Saga(id=saga_id)
        try:
            stored = found.get(saga_id)
            saga = stored_summary(stored or await self._views.require(saga_id))
            if stored is None:
                return _Act(saga, _no_longer_selected(saga_id))
            view = await self._views.current(saga_id)
            if isinstance(view, StoredSaga):
                return _Act(saga, set_aside(view.saga_id, view.quarantined) if view.quarantined is not None else None)
            saga, commands = saga_summary(view.plan, view.state), _commands_of(request, view)
            if request.dry_run:
                _try_out(view, commands)
                return _Act(saga, None)
            for command in commands:
                saga = await self._commands.give(saga_id, command, lambda accepted: saga_summary(accepted.plan, accepted.state))
        except Exception as error:  # whatever is wrong with this saga, the others are not concerned (P5)
            return _Act(saga, error)
        return _Act(saga, None)


def _try_out(view: SagaView, commands: Sequence[Command]) -> None:
    """Raises the refusal that a saga would answer. Decides only: nothing is applied."""
    for command in commands:
        try:
            decide(view.plan, view.state, command, view.now)
        except CommandRefusedError as refused:
            answer = CommandRefused(status=refused.status, refusal=refused.refusal, message=str(refused))
            raise refusal_of_command(view.state.saga_id, answer) from refused


def _commands_of(request: operator_pb2.ActOnSagasRequest, view: SagaView) -> Sequence[Command]:
    reason, actor = request.reason, request.actor
    match request.action:
        case operator_pb2.BULK_ACTION_PAUSE:
            return (Pause(reason=reason, actor=actor),)
        case operator_pb2.BULK_ACTION_RESUME:
            return (Resume(reason=reason, actor=actor),)
        case operator_pb2.BULK_ACTION_CANCEL:
            return (Cancel(reason=reason, actor=actor),)
        case operator_pb2.BULK_ACTION_TERMINATE:
            return (Terminate(reason=reason, actor=actor),)
        case _:
            return _retries_of(view, reason, actor)


def _retries_of(view: SagaView, reason: str, actor: str) -> Sequence[Command]:
    """A new attempt of every step that an open incident keeps from going on, in the order of the incidents."""
    # A late outcome stops nothing: its step was resolved already, and a person only has to know of it (R17).
    stopping = [one.fact for one in view.state.incidents if one.closed_at is None and one.fact.kind is not IncidentKind.LATE_OUTCOME]
    steps = dict.fromkeys(fact.step_id for fact in stopping if fact.step_id is not None)
    if not steps:
        message = f"saga {view.state.saga_id} has no step that an open incident keeps from going on, so there is nothing to try again"
        raise refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.STEP_STATUS, message, saga_id=view.state.saga_id)
    return [RetryStep(step_id=step_id, reason=reason, actor=actor) for step_id in steps]


def _find_problems(request: operator_pb2.ActOnSagasRequest) -> Iterator[Problem]:
    yield from find_in_numbers([request.action], [action for action in operator_pb2.BulkAction.values() if action], "action", "action")
    yield from find_in_person(request.actor, request.reason, is_reason_required=not request.dry_run)
    if not request.dry_run and not request.saga_ids:
        yield Problem("saga_ids", "expected the sagas that a dry run showed, found none; make a dry run first")
    if len(request.saga_ids) > SAGAS_MAX:
        yield Problem("saga_ids", f"expected at most {SAGAS_MAX} sagas, found {len(request.saga_ids)}")
    for index, saga_id in enumerate(request.saga_ids[:SAGAS_MAX]):
        yield from find_in_saga_id(saga_id, f"saga_ids[{index}]")


def _no_longer_selected(saga_id: SagaId) -> RefusedError:
    message = f"saga {saga_id} is not among those that the selection finds any more: nothing was done to it; make another dry run"
    return refusal(grpc.StatusCode.FAILED_PRECONDITION, ErrorReason.NO_LONGER_SELECTED, message, saga_id=saga_id)


def _raise_if_unavailable(acts: Sequence[_Act]) -> None:
    """Without its database nothing can be done to any saga: going on would only take long."""
    for error in (act.error for act in acts):
        if isinstance(error, JournalUnavailableError):
            raise error
        if isinstance(error, RefusedError) and error_reason(error.status) == ErrorReason.JOURNAL_UNAVAILABLE:
            raise error
