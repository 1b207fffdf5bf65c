/** Log lines as JSON on standard output, each about a call with the ids that lead to its saga and its trace. */

import type { Request } from "./requests.js";

export type Fields = Readonly<Record<string, string | number>>;

export function log(level: "info" | "warn" | "error", message: string, fields: Fields = {}): void {
  process.stdout.write(`${JSON.stringify({ at: new Date().toISOString(), level, message, ...fields })}\n`);
}

/** The ids of a call: those of its step, and those of the trace that the coordinator began for its saga. */
export function idsOf(request: Request, traceparent: string): Fields {
  return { "saga.id": request.saga_id, "saga.step": request.step_id, "saga.attempt": request.attempt, ...traceOf(traceparent) };
}

/** W3C trace context: version, trace id, span id of the caller, flags. Empty if it is none. */
function traceOf(traceparent: string): Fields {
  const found = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}/.exec(traceparent);
  return found === null ? {} : { trace_id: found[1] ?? "", span_id: found[2] ?? "" };
}
