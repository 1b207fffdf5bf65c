/** What the barrier decides about a call: a pure function of the key's row and the call (R18). */

/** What a row says about executing. STARTED is never committed here: every effect is inside of the database. */
export type ExecutionState = "STARTED" | "SUCCEEDED" | "REJECTED" | "SEALED";

/** What is remembered of one key. */
export interface BarrierRow {
  readonly action: string;
  readonly fingerprint: Buffer;
  readonly execution: ExecutionState;
  /** The encoded ExecuteResponse of what SUCCEEDED or was REJECTED. */
  readonly reply: Buffer | null;
  readonly compensation: "NONE" | "DONE";
  readonly handler_ran: boolean;
}

/** One call, as far as the barrier cares. */
export interface Call {
  /** Key of the execution: `key` of Execute, `execute_key` of Compensate. */
  readonly key: string;
  readonly sagaId: string;
  readonly stepId: string;
  readonly action: string;
  /** SHA-256 of the input's type and bytes. */
  readonly fingerprint: Buffer;
  /** When the first attempt to execute was due, in microseconds. */
  readonly firstAttemptAtUs: number;
  /** When this call ends, in milliseconds. */
  readonly deadlineMs: number;
}

export type Refusal = { kind: "expired" } | { kind: "mismatch" };
export type ExecuteVerdict = { kind: "run" } | { kind: "replay"; reply: Buffer } | { kind: "sealed" } | Refusal;
export type CompensateVerdict =
  | { kind: "undo"; output: "stored" | "claimed" }
  | { kind: "nothing to undo" }
  | { kind: "undone"; handlerRan: boolean }
  | Refusal;

/** Decides about a call to execute. `row`: null if the key was never seen, or is forgotten. */
export function judgeExecute(row: BarrierRow | null, call: Call, nowUs: number, retentionUs: number): ExecuteVerdict {
  if (row === null) {
    return mayBeForgotten(call, nowUs, retentionUs) ? { kind: "expired" } : { kind: "run" };
  }
  if (isForSomethingElse(row, call)) {
    return { kind: "mismatch" };
  }
  if (row.compensation !== "NONE" || row.execution === "SEALED") {
    return { kind: "sealed" };
  }
  // A row without a reply was changed by hand: nobody knows what became of the key, and running it again is what must not happen.
  if (row.reply === null) {
    throw new Error(`the barrier row of ${call.key} is ${row.execution} and has no reply`);
  }
  return { kind: "replay", reply: row.reply };
}

/** Decides about a call to compensate. `isKnown`: whether the coordinator knows that the step succeeded (R20). */
export function judgeCompensate(
  row: BarrierRow | null,
  call: Call,
  isKnown: boolean,
  nowUs: number,
  retentionUs: number,
): CompensateVerdict {
  if (row === null) {
    if (mayBeForgotten(call, nowUs, retentionUs)) {
      return { kind: "expired" };
    }
    return isKnown ? { kind: "undo", output: "claimed" } : { kind: "nothing to undo" };
  }
  if (isForSomethingElse(row, call)) {
    return { kind: "mismatch" };
  }
  if (row.compensation === "DONE") {
    return { kind: "undone", handlerRan: row.handler_ran };
  }
  if (row.execution === "SUCCEEDED") {
    return { kind: "undo", output: "stored" };
  }
  return isKnown ? { kind: "undo", output: "claimed" } : { kind: "nothing to undo" };
}

function mayBeForgotten(call: Call, nowUs: number, retentionUs: number): boolean {
  return nowUs - call.firstAttemptAtUs > retentionUs;
}

function isForSomethingElse(row: BarrierRow, call: Call): boolean {
  return row.action !== call.action || !row.fingerprint.equals(call.fingerprint);
}
