"""Messages: mails the itinerary, and sends short messages to a telephone."""

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from participant_sdk import Participant, Rejected, StepContext, action
from travel.v1.travel_pb2 import ItinerarySent, SendItinerary, SendText, TextSent


class Base(DeclarativeBase):
    pass


class Message(Base):
    """What was handed to the post office of the internet, or to the telephone company."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    trip_id: Mapped[str]
    to: Mapped[str]
    text: Mapped[str]


class Messages(Participant, name="messages"):
    @action
    async def send_itinerary(self, request: SendItinerary, step: StepContext) -> ItinerarySent:
        if request.to.startswith("full@"):
            raise Rejected("MAILBOX_FULL", f"the mailbox of {request.to} is full")
        step.session.add(Message(kind="itinerary", trip_id=request.trip_id, to=request.to, text="\n".join(request.lines)))
        return ItinerarySent()

    @action
    async def send_text(self, request: SendText, step: StepContext) -> TextSent:
        step.session.add(Message(kind="text", trip_id=request.trip_id, to=request.to, text=request.text))
        return TextSent()
