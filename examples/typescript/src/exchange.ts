/** Calls in frames: many at once on one stream, each with a time and a reply of its own. An optimisation, which could be left out. */

import { status as Code, type ServerDuplexStream } from "@grpc/grpc-js";

import type { Barrier } from "./barrier.js";
import { compensate, execute, type Circumstances } from "./calls.js";
import { plainStatus, refusal, statusErrorOf } from "./errors.js";
import type { ExchangeCall__Output } from "./generated/saga/v1/ExchangeCall.js";
import type { ExchangeReply } from "./generated/saga/v1/ExchangeReply.js";
import type { ExchangeRequest__Output } from "./generated/saga/v1/ExchangeRequest.js";
import type { ExchangeResponse } from "./generated/saga/v1/ExchangeResponse.js";
import { timeLeftMs } from "./requests.js";

type Stream = ServerDuplexStream<ExchangeRequest__Output, ExchangeResponse>;

/** Replies in one frame. Outputs of this service are a few bytes, so that a frame stays far below 1 MiB. */
const REPLIES_MAX = 32;
/** Calls under way on one stream; further ones are asked for again later. */
const CALLS_MAX = 4_096;
const PUT_OFF_NS = 100_000_000;

/** All streams that are open. */
export class Streams {
  readonly #barrier: Barrier;
  readonly #open = new Set<Session>();

  constructor(barrier: Barrier) {
    this.#barrier = barrier;
  }

  /** Serves one stream until its caller ends it. */
  open(stream: Stream): void {
    const session = new Session(this.#barrier, stream, () => this.#open.delete(session));
    this.#open.add(session);
  }

  /** Asks for no more calls. Those under way are still answered, and then the callers end their streams. */
  drain(): void {
    for (const session of this.#open) session.drain();
  }
}

/** One stream. */
class Session {
  readonly #barrier: Barrier;
  readonly #stream: Stream;
  readonly #onEnd: () => void;
  /** Ids of the calls under way. */
  readonly #underWay = new Set<number>();
  #replies: ExchangeReply[] = [];
  #isBlocked = false;
  #isFlushDue = false;
  #hasEnded = false;

  constructor(barrier: Barrier, stream: Stream, onEnd: () => void) {
    this.#barrier = barrier;
    this.#stream = stream;
    this.#onEnd = onEnd;
    // Ids of `forsaken` calls are not looked at: they may be cut short, and need not be.
    stream.on("data", ({ calls }: ExchangeRequest__Output) => calls.forEach((call) => this.#begin(call)));
    stream.on("drain", () => {
      this.#isBlocked = false;
      this.#flush();
    });
    stream.on("end", () => {
      this.#hasEnded = true;
      this.#flush();
    });
    stream.on("error", onEnd);
    stream.on("close", onEnd);
    stream.on("cancelled", onEnd);
  }

  drain(): void {
    this.#stream.write({ draining: true });
  }

  #begin(call: ExchangeCall__Output): void {
    const { id } = call;
    if (call.call === undefined || this.#underWay.has(id)) {
      this.#reply({ id, status: refusal(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "expected a call with an id of its own") });
      return;
    }
    if (this.#underWay.size >= CALLS_MAX) {
      const status = plainStatus(Code.UNAVAILABLE, "too many calls are under way on this stream");
      const later = { retry_later: { delay: { nanos: PUT_OFF_NS }, status } };
      this.#reply(call.call === "execute" ? { id, executed: later } : { id, compensated: later });
      return;
    }
    this.#underWay.add(id);
    void this.#answer(call).then((reply) => {
      this.#underWay.delete(id);
      this.#reply({ id, ...reply });
    });
  }

  /** Never throws. A call is answered when its time is over; what is still at work then ends by the limits of its database. */
  async #answer({ execute: executed, compensate: compensated, traceparent }: ExchangeCall__Output): Promise<ExchangeReply> {
    const circumstances: Circumstances = { deadline: Infinity, traceparent };
    const answered: Promise<ExchangeReply> = executed
      ? execute(this.#barrier, executed, circumstances).then((response) => ({ executed: response }))
      : compensate(this.#barrier, compensated!, circumstances).then((response) => ({ compensated: response }));
    const leftMs = timeLeftMs((executed ?? compensated)?.time_left ?? null, Infinity);
    let timer: NodeJS.Timeout | undefined;
    const overdue = new Promise<ExchangeReply>((resolve) => {
      const status = plainStatus(Code.DEADLINE_EXCEEDED, "the call did not end within its time");
      timer = setTimeout(() => resolve({ status }), leftMs);
    });
    try {
      return await Promise.race([answered, overdue]);
    } catch (error) {
      return { status: statusErrorOf(error).told };
    } finally {
      clearTimeout(timer);
    }
  }

  /** What is ready in the same turn of the loop goes together. */
  #reply(reply: ExchangeReply): void {
    this.#replies.push(reply);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    setImmediate(() => {
      this.#isFlushDue = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (!this.#isBlocked && this.#replies.length > 0) {
      this.#isBlocked = !this.#stream.write({ replies: this.#replies.splice(0, REPLIES_MAX) });
    }
    if (this.#hasEnded && this.#underWay.size === 0 && this.#replies.length === 0 && !this.#isFlushDue) {
      this.#onEnd();
      this.#stream.end();
    }
  }
}
