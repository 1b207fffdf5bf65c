"""What happens to a saga, in a few words per event. `saga watch` and `saga show` tell more."""

from saga.v1 import saga_pb2


def tell(event: saga_pb2.Event) -> str:
    """One line. Example: "step succeeded: quote → charge is due, approve is left out"."""
    fact = event.WhichOneof("fact") or "something new"
    about = getattr(event, fact, None)
    step_id = getattr(getattr(about, "attempt", None), "step_id", "") or getattr(about, "step_id", "")
    line = fact.replace("_", " ") + (f": {step_id}" if step_id else "")
    error = _error_of(event)
    consequences = ", ".join(_tell_reached(reached) for reached in event.reached)
    return line + (f" ({error})" if error else "") + (f" → {consequences}" if consequences else "")


def _error_of(event: saga_pb2.Event) -> str:
    errors = {
        "attempt_failed": event.attempt_failed.error,
        "step_rejected": event.step_rejected.error,
        "incident_opened": event.incident_opened.incident.error,
    }
    fact = event.WhichOneof("fact")
    return str(errors[fact].message) if fact in errors else ""


def _tell_reached(reached: saga_pb2.StepReached) -> str:
    match reached.WhichOneof("consequence"):
        case "left_out":
            return f"{reached.step_id} is left out"
        case "error":
            return f"{reached.step_id} cannot be executed: {reached.error.message}"
        case _:
            return f"{reached.step_id} is due"
