/** Errors: what handlers throw to end a step, and the statuses that calls end with. */

import { Metadata, status as Code } from "@grpc/grpc-js";

import type { Status } from "./generated/google/rpc/Status.js";
import { errorInfo, pack, status } from "./wire.js";

/** Domain of the reasons that the contract names. */
const CONTRACT_DOMAIN = "saga.v1";
/** Domain of the reasons that this service rejects steps for. */
const BUSINESS_DOMAIN = "loyalty.example";
/** Longest message of a status. */
const MESSAGE_BYTES_MAX = 1024;

/** The reasons of the contract that a participant needs. */
export type ContractReason =
  | "KEY_EXPIRED"
  | "KEY_PAYLOAD_MISMATCH"
  | "SEALED"
  | "UNKNOWN_ACTION"
  | "INPUT_TYPE_MISMATCH"
  | "INPUT_INVALID"
  | "PAYLOAD_TOO_LARGE"
  | "REQUEST_INVALID";

/** Thrown by a handler: it is refused for good. What the handler wrote is rolled back, and the refusal is stored. */
export class Rejected extends Error {
  constructor(
    /** For programs, in capitals. */
    readonly reason: string,
    message: string,
  ) {
    super(message);
  }

  toStatus(): Status {
    return statusOf(Code.FAILED_PRECONDITION, this.message, this.reason, BUSINESS_DOMAIN);
  }
}

/** The call ends with this status instead of an answer. */
export class StatusError extends Error {
  readonly code: Code;
  readonly metadata = new Metadata();

  constructor(readonly told: Status) {
    super(told.message);
    this.code = told.code ?? Code.UNKNOWN;
    this.metadata.set("grpc-status-details-bin", status.encode(told));
  }
}

/** What a call ends with that failed. If nobody foresaw it the status is UNKNOWN: it is asked again with the same key. */
export function statusErrorOf(error: unknown): StatusError {
  return error instanceof StatusError ? error : new StatusError(plainStatus(Code.UNKNOWN, String(error)));
}

/** A refusal with one of the contract's reasons. */
export function refusal(code: Code, reason: ContractReason, message: string): Status {
  return statusOf(code, message, reason, CONTRACT_DOMAIN);
}

/** An error without a reason for programs. */
export function plainStatus(code: Code, message: string): Status {
  return { code, message: bounded(message), details: [] };
}

function statusOf(code: Code, message: string, reason: string, domain: string): Status {
  return { code, message: bounded(message), details: [pack(errorInfo, { reason, domain, metadata: {} })] };
}

function bounded(text: string): string {
  const encoded = Buffer.from(text);
  return encoded.length <= MESSAGE_BYTES_MAX ? text : encoded.subarray(0, MESSAGE_BYTES_MAX - 4).toString();
}
