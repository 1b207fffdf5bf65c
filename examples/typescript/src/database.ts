/** Database transactions, and what an error of PostgreSQL asks for. */

import { DatabaseError, type Pool, type PoolClient } from "pg";

/** Where statements go. */
export type Database = Pick<PoolClient, "query">;

/** How a unit of work ends, and what it answers. */
export interface Ended<AnswerT> {
  readonly end: "COMMIT" | "ROLLBACK";
  readonly answer: AnswerT;
}

/** Nothing happened, and the same again may go well: a deadlock, or two that changed the same. */
export class RepeatError extends Error {}

/** Nothing happened: the database did not get to it in time. */
export class BusyError extends Error {}

/** Nothing happened: the database cannot be reached. */
export class AwayError extends Error {}

/** COMMIT was sent and not answered: nobody knows whether it took place. */
export class InDoubtError extends Error {}

const REPEATED = new Set(["40001", "40P01"]);
/** lock_not_available, query_canceled by a time limit. */
const BUSY = new Set(["55P03", "57014"]);
/** For this database transaction only. The last one: a process that is stopped in between must not hold its locks for ever. */
const LIMITS =
  "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true), " +
  "set_config('idle_in_transaction_session_timeout', $2, true)";
/** The server shuts down, or is not up yet. */
const AWAY = new Set(["57P01", "57P02", "57P03", "53300"]);

/**
 * Runs `work` in one database transaction. A statement may take as long as is left until `deadlineMs` when it begins, and wait for a lock
 * half as long. It may be committed late: an undo waits for the lock of its row meanwhile.
 *
 * Throws what `work` throws, after rolling back, with the errors of the database told apart.
 */
export async function inTransaction<AnswerT>(
  pool: Pool,
  deadlineMs: number,
  work: (database: Database) => Promise<Ended<AnswerT>>,
): Promise<AnswerT> {
  const client = await pool.connect().catch((error: unknown) => {
    throw new AwayError("the database cannot be reached", { cause: error });
  });
  let broken: Error | undefined;
  // Without a listener a connection that breaks between two statements would end the process.
  const onBreak = (error: Error) => (broken = error);
  client.on("error", onBreak);
  try {
    const leftMs = Math.floor(deadlineMs - Date.now());
    if (leftMs <= 1) {
      throw new BusyError("the time of the call was over before its turn came");
    }
    await client.query("BEGIN");
    await client.query(LIMITS, [`${Math.ceil(leftMs / 2)}ms`, `${leftMs}ms`]);
    const ended = await work(client);
    await (ended.end === "COMMIT" ? commit(client) : client.query("ROLLBACK"));
    return ended.answer;
  } catch (error) {
    if (!(error instanceof InDoubtError)) {
      await client.query("ROLLBACK").catch((failed: Error) => (broken = failed));
    } else {
      broken = error;
    }
    throw translated(error);
  } finally {
    client.off("error", onBreak);
    client.release(broken);
  }
}

async function commit(client: PoolClient): Promise<void> {
  let ended;
  try {
    ended = await client.query("COMMIT");
  } catch (error) {
    throw new InDoubtError("COMMIT was not answered", { cause: error });
  }
  // PostgreSQL answers the COMMIT of a database transaction that had failed with ROLLBACK, and no error.
  if (ended.command !== "COMMIT") {
    throw new Error("a statement failed and was ignored: everything was rolled back");
  }
}

function translated(error: unknown): unknown {
  if (error instanceof DatabaseError) {
    const code = error.code ?? "";
    if (REPEATED.has(code)) return new RepeatError(error.message, { cause: error });
    if (BUSY.has(code)) return new BusyError(error.message, { cause: error });
    if (AWAY.has(code)) return new AwayError(error.message, { cause: error });
    return error;
  }
  return isLostConnection(error) ? new AwayError("the connection to the database was lost", { cause: error }) : error;
}

/** The driver has no class for it: errors of the socket have a code, and its own one says "terminated". */
function isLostConnection(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return "syscall" in error || error.message.startsWith("Connection terminated") || error.message.includes("not queryable");
}
