/**
 * The barrier: lets each key take effect once, by a row in the service's own database.
 *
 * THE REPLY IS COMMITTED WITH THE EFFECT, AND ANSWERED AFTER THE COMMIT.
 */

import { status as Code } from "@grpc/grpc-js";
import type { Pool } from "pg";

import { AwayError, BusyError, inTransaction, InDoubtError, RepeatError, type Database, type Ended } from "./database.js";
import { plainStatus, refusal, Rejected, StatusError } from "./errors.js";
import type { CompensateResponse } from "./generated/saga/v1/CompensateResponse.js";
import type { ExecuteResponse } from "./generated/saga/v1/ExecuteResponse.js";
import type { RetryLater } from "./generated/saga/v1/RetryLater.js";
import { judgeCompensate, judgeExecute, type BarrierRow, type Call, type ExecutionState, type Refusal } from "./verdict.js";
import { executeResponse, type Payload } from "./wire.js";

/** How often a database transaction is begun for one call at most. */
const REPEATS_MAX = 5;
/** How often the row of a key is looked for that comes and goes. */
const LOCK_TRIES = 3;
/** How much longer rows are kept than is promised: the coordinator's clock may be ahead. */
const RETENTION_MARGIN_US = 86_400_000_000;
/** When to call again after the database was too busy, in nanoseconds. */
const BUSY_DELAY_NS = 200_000_000;

/** Does a step and returns its output. Throws Rejected to refuse it. */
export type Execute = (database: Database) => Promise<Payload>;
/** Undoes a step that had this output. */
export type Compensate = (database: Database, output: Payload) => Promise<void>;

export class Barrier {
  readonly #pool: Pool;
  readonly #retentionUs: number;

  /** `retentionS`: how long keys are remembered, in seconds. */
  constructor(pool: Pool, retentionS: number) {
    this.#pool = pool;
    this.#retentionUs = retentionS * 1_000_000;
  }

  /** Answers Execute. Throws StatusError. */
  execute(call: Call, run: Execute): Promise<ExecuteResponse> {
    return this.#guarded<ExecuteResponse>(call, async (database) => {
      const row = await lockRow(database, call, "STARTED");
      const verdict = judgeExecute(row, call, nowUs(), this.#retentionUs);
      switch (verdict.kind) {
        case "run":
          return { end: "COMMIT", answer: await runAndStore(database, call, run) };
        case "replay":
          return { end: "ROLLBACK", answer: executeResponse.decode(verdict.reply) };
        case "sealed":
          return { end: "ROLLBACK", answer: sealedRefusal(call) };
        case "expired":
        case "mismatch":
          throw refused(call, verdict);
      }
    });
  }

  /** Answers Compensate. `claimed`: the output, if the coordinator knows it. Throws StatusError. */
  compensate(call: Call, claimed: Payload | null, undo: Compensate): Promise<CompensateResponse> {
    return this.#guarded<CompensateResponse>(call, async (database) => {
      const row = await lockRow(database, call, "SEALED");
      const verdict = judgeCompensate(row, call, claimed !== null, nowUs(), this.#retentionUs);
      switch (verdict.kind) {
        case "undo":
          await undo(database, verdict.output === "stored" ? outputOf(row) : known(claimed));
          return { end: "COMMIT", answer: await storeUndone(database, call, row, true) };
        case "nothing to undo":
          return { end: "COMMIT", answer: await storeUndone(database, call, row, false) };
        case "undone":
          return { end: "ROLLBACK", answer: { compensated: { handler_ran: verdict.handlerRan } } };
        case "expired":
        case "mismatch":
          throw refused(call, verdict);
      }
    });
  }

  /** Deletes up to 500 rows that need not be remembered any more; returns how many. */
  async forget(): Promise<number> {
    const deleted = await this.#pool.query(
      `DELETE FROM saga_barrier WHERE key IN
         (SELECT key FROM saga_barrier WHERE created_at_us < $1 ORDER BY created_at_us LIMIT 500)`,
      [nowUs() - this.#retentionUs - RETENTION_MARGIN_US],
    );
    return deleted.rowCount ?? 0;
  }

  /** Repeats the whole database transaction while that may help. What is answered is known; what is not known is UNKNOWN. */
  async #guarded<AnswerT>(
    call: Call,
    work: (database: Database) => Promise<Ended<AnswerT>>,
  ): Promise<AnswerT | { retry_later: RetryLater }> {
    let isInDoubt = false;
    for (let attempt = 0; attempt < REPEATS_MAX; attempt++) {
      try {
        return await inTransaction(this.#pool, call.deadlineMs, work);
      } catch (error) {
        if (error instanceof InDoubtError) {
          isInDoubt = true; // The next try waits for it, and replays what it committed.
        } else if (error instanceof BusyError || error instanceof AwayError) {
          if (isInDoubt) break;
          if (error instanceof AwayError) throw new StatusError(plainStatus(Code.UNAVAILABLE, error.message));
          return retryLater(`the database is too busy for key ${call.key}; nothing happened`);
        } else if (!(error instanceof RepeatError)) {
          throw error;
        }
      }
    }
    if (isInDoubt) throw new StatusError(plainStatus(Code.UNKNOWN, `nobody knows whether the effect of key ${call.key} was committed`));
    return retryLater(`the database is too busy for key ${call.key}; nothing happened`);
  }
}

/** Takes the lock of a key. Returns its row, or null if there was none, and now is one in that state. */
async function lockRow(database: Database, call: Call, state: ExecutionState): Promise<BarrierRow | null> {
  for (let attempt = 0; attempt < LOCK_TRIES; attempt++) {
    const put = await database.query(
      `INSERT INTO saga_barrier (key, saga_id, step_id, action, fingerprint, execution, created_at_us, updated_at_us)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (key) DO NOTHING`,
      [call.key, call.sagaId, call.stepId, call.action, call.fingerprint, state, nowUs()],
    );
    if (put.rowCount === 1) return null;
    const found = await database.query<BarrierRow>(
      "SELECT action, fingerprint, execution, reply, compensation, handler_ran FROM saga_barrier WHERE key = $1 FOR UPDATE",
      [call.key],
    );
    const [row] = found.rows;
    if (row !== undefined) return row;
  }
  throw new BusyError(`the row of key ${call.key} comes and goes`);
}

async function runAndStore(database: Database, call: Call, run: Execute): Promise<ExecuteResponse> {
  await database.query("SAVEPOINT handler");
  let state: ExecutionState = "SUCCEEDED";
  let response: ExecuteResponse;
  try {
    response = { succeeded: { output: await run(database) } };
  } catch (error) {
    if (!(error instanceof Rejected)) throw error;
    await database.query("ROLLBACK TO SAVEPOINT handler");
    state = "REJECTED";
    response = { rejected: { status: error.toStatus(), sealed: true } };
  }
  await database.query("UPDATE saga_barrier SET execution = $2, reply = $3, updated_at_us = $4 WHERE key = $1", [
    call.key,
    state,
    executeResponse.encode(response),
    nowUs(),
  ]);
  return response;
}

async function storeUndone(database: Database, call: Call, row: BarrierRow | null, handlerRan: boolean): Promise<CompensateResponse> {
  const isKept = row !== null && (row.execution === "SUCCEEDED" || (row.execution === "REJECTED" && !handlerRan));
  await database.query(
    "UPDATE saga_barrier SET execution = $2, compensation = 'DONE', handler_ran = $3, updated_at_us = $4 WHERE key = $1",
    [call.key, isKept ? row.execution : "SEALED", handlerRan, nowUs()],
  );
  return { compensated: { handler_ran: handlerRan } };
}

function outputOf(row: BarrierRow | null): Payload {
  const stored = row?.reply ? executeResponse.decode(row.reply) : null;
  return known(stored?.succeeded?.output ?? null);
}

function known(output: Payload | null): Payload {
  if (output === null) throw new Error("expected the output of what is to be undone, found none");
  return output;
}

function sealedRefusal(call: Call): ExecuteResponse {
  const status = refusal(Code.FAILED_PRECONDITION, "SEALED", `${call.action} with key ${call.key} is sealed: its compensation came first`);
  return { rejected: { status, sealed: true } };
}

function refused(call: Call, verdict: Refusal): StatusError {
  if (verdict.kind === "mismatch") {
    return new StatusError(
      refusal(Code.INVALID_ARGUMENT, "KEY_PAYLOAD_MISMATCH", `key ${call.key} was used for another input or action`),
    );
  }
  return new StatusError(refusal(Code.FAILED_PRECONDITION, "KEY_EXPIRED", `nothing is known of key ${call.key}, which may be forgotten`));
}

function retryLater(message: string): { retry_later: RetryLater } {
  return { retry_later: { delay: { seconds: 0, nanos: BUSY_DELAY_NS }, status: plainStatus(Code.UNAVAILABLE, message) } };
}

function nowUs(): number {
  return Date.now() * 1000;
}
