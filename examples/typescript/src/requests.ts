/** Reading a call off the wire: which action, with what input, until when. Bad requests end here, before anything is looked up. */

import { createHash } from "node:crypto";

import { status as Code, type Deadline } from "@grpc/grpc-js";

import { refusal, StatusError } from "./errors.js";
import type { Duration__Output } from "./generated/google/protobuf/Duration.js";
import type { Timestamp__Output } from "./generated/google/protobuf/Timestamp.js";
import type { CompensateRequest__Output } from "./generated/saga/v1/CompensateRequest.js";
import type { ExecuteRequest__Output } from "./generated/saga/v1/ExecuteRequest.js";
import type { Call } from "./verdict.js";
import { typeNameOf, type Codec, type Payload } from "./wire.js";

/** Largest message that gRPC is to take and send, in either direction. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024 + 64 * 1024;
/** Largest input or output. */
export const PAYLOAD_BYTES_MAX = 1024 * 1024;
const KEY_CHARS_MAX = 255;
const STEP_ID_CHARS_MAX = 64;
/** Time for a call that names none. */
const TIME_LEFT_DEFAULT_MS = 10_000;
const TIME_LEFT_MAX_MS = 24 * 3_600_000;

export type Request = ExecuteRequest__Output | CompensateRequest__Output;

/** The call as the barrier sees it. `executeKey`: the key of the execution that it is, or undoes. Throws StatusError. */
export function readCall(request: Request, executeKey: string, deadline: Deadline): Call {
  const { first_attempt_at: firstAttemptAt, input } = request;
  checkText("key", request.key, KEY_CHARS_MAX);
  checkText("execute_key", executeKey, KEY_CHARS_MAX);
  checkText("step_id", request.step_id, STEP_ID_CHARS_MAX);
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(request.saga_id)) throw invalid("saga_id: expected a UUID");
  if (firstAttemptAt === null) throw invalid("first_attempt_at: expected when the first attempt was due");
  if (input === null) throw invalid("input: expected a payload");
  return {
    key: executeKey,
    sagaId: request.saga_id,
    stepId: request.step_id,
    action: request.action,
    fingerprint: createHash("sha256").update(`${typeNameOf(input)}\0`).update(input.value).digest(),
    firstAttemptAtUs: microsOf(firstAttemptAt),
    deadlineMs: Date.now() + timeLeftMs(request.time_left, deadline),
  };
}

/** The input as a message. Throws StatusError. */
export function readInput<InT>(codec: Codec<never, InT>, action: string, input: Payload | null): InT {
  if (input === null || typeNameOf(input) !== codec.name) {
    const found = input === null ? "none" : typeNameOf(input);
    throw new StatusError(refusal(Code.INVALID_ARGUMENT, "INPUT_TYPE_MISMATCH", `${action} takes a ${codec.name}, found ${found}`));
  }
  if (input.value.length > PAYLOAD_BYTES_MAX) {
    const message = `${action}: the input has ${input.value.length} bytes, ${PAYLOAD_BYTES_MAX} are allowed`;
    throw new StatusError(refusal(Code.INVALID_ARGUMENT, "PAYLOAD_TOO_LARGE", message));
  }
  try {
    return codec.decode(input.value);
  } catch {
    throw new StatusError(refusal(Code.INVALID_ARGUMENT, "INPUT_INVALID", `${action}: the input is no encoded ${codec.name}`));
  }
}

function checkText(field: string, value: string, charsMax: number): void {
  if (value.length < 1 || value.length > charsMax || /\p{Cc}/u.test(value)) {
    throw invalid(`${field}: expected 1 to ${charsMax} printable characters`);
  }
}

function invalid(message: string): StatusError {
  return new StatusError(refusal(Code.INVALID_ARGUMENT, "REQUEST_INVALID", message));
}

/** The shorter of the gRPC deadline and what the request says, in milliseconds. */
export function timeLeftMs(told: Duration__Output | null, deadline: Deadline): number {
  const byGrpc = Number(deadline) - Date.now(); // Infinity: there is none
  const byRequest = told === null ? Infinity : told.seconds * 1e3 + told.nanos / 1e6;
  const leftMs = Math.min(byGrpc, byRequest);
  return Math.min(Number.isFinite(leftMs) ? leftMs : TIME_LEFT_DEFAULT_MS, TIME_LEFT_MAX_MS);
}

function microsOf(instant: Timestamp__Output): number {
  return instant.seconds * 1e6 + Math.floor(instant.nanos / 1e3);
}
