/** What a call comes to, however it came: by itself or in a frame. */

import { status as Code, type Deadline } from "@grpc/grpc-js";

import type { Barrier } from "./barrier.js";
import { refusal, StatusError } from "./errors.js";
import type { CompensateRequest__Output } from "./generated/saga/v1/CompensateRequest.js";
import type { CompensateResponse } from "./generated/saga/v1/CompensateResponse.js";
import type { ExecuteRequest__Output } from "./generated/saga/v1/ExecuteRequest.js";
import type { ExecuteResponse } from "./generated/saga/v1/ExecuteResponse.js";
import { idsOf, log } from "./log.js";
import { award, redeem, type Action } from "./loyalty.js";
import { readCall, readInput, type Request } from "./requests.js";
import { pack, type Payload } from "./wire.js";

/** Name of the participant: the part of an action before the dot. */
export const NAME = "loyalty";

/** Each action pairs two types of its own, which only the wire connects. */
export type AnyAction = Action<any, any>;

export const ACTIONS: ReadonlyMap<string, AnyAction> = new Map<string, AnyAction>([
  ["redeem", redeem],
  ["award", award],
]);

const NO_PAYLOAD: Payload = { type_url: "", value: Buffer.alloc(0) };

/** What comes with a call besides its request. */
export interface Circumstances {
  /** The gRPC deadline; Infinity if there is none of its own. */
  readonly deadline: Deadline;
  /** W3C trace context; empty if there is none. */
  readonly traceparent: string;
}

/** Answers Execute. Throws StatusError. */
export function execute(
  barrier: Barrier,
  request: ExecuteRequest__Output,
  { deadline, traceparent }: Circumstances,
): Promise<ExecuteResponse> {
  return logged("execute", request, traceparent, async () => {
    const action = actionOf(request);
    const call = readCall(request, request.key, deadline);
    const input: unknown = readInput(action.input, request.action, request.input);
    return barrier.execute(call, async (database) => pack(action.output, await action.execute(database, input)));
  });
}

/** Answers Compensate. Throws StatusError. */
export function compensate(
  barrier: Barrier,
  request: CompensateRequest__Output,
  { deadline, traceparent }: Circumstances,
): Promise<CompensateResponse> {
  return logged("compensate", request, traceparent, async () => {
    const { input, compensate: undo } = actionOf(request);
    if (undo === undefined) throw unknownAction(`${request.action} cannot be undone`);
    const call = readCall(request, request.execute_key, deadline);
    readInput(input, request.action, request.input);
    // That it succeeded is known by the field that is set, and not by its output, which may be as good as empty.
    const claimed = request.succeeded ? (request.succeeded.output ?? NO_PAYLOAD) : null;
    return barrier.compensate(call, claimed, (database, output) => undo(database, output.value));
  });
}

function actionOf({ action: asked }: Request): AnyAction {
  const [participant, name = ""] = asked.split(".", 2);
  const action = participant === NAME ? ACTIONS.get(name) : undefined;
  if (action === undefined) {
    const served = [...ACTIONS.keys()].map((each) => `${NAME}.${each}`).join(", ");
    throw unknownAction(`expected one of the actions served here (${served}), found ${asked}`);
  }
  return action;
}

function unknownAction(message: string): StatusError {
  return new StatusError(refusal(Code.UNIMPLEMENTED, "UNKNOWN_ACTION", message));
}

/** Writes down how a call was answered, with the ids that lead to its saga and its trace. */
async function logged<AnswerT extends ExecuteResponse | CompensateResponse>(
  direction: string,
  request: Request,
  traceparent: string,
  answer: () => Promise<AnswerT>,
): Promise<AnswerT> {
  const told = `${direction} ${request.action}`;
  const ids = idsOf(request, traceparent);
  try {
    const answered = await answer();
    log("info", told, { ...ids, outcome: Object.keys(answered).find((name) => name !== "outcome") ?? "" });
    return answered;
  } catch (error) {
    const isForeseen = error instanceof StatusError;
    log(isForeseen ? "warn" : "error", told, { ...ids, error: isForeseen ? error.message : String((error as Error).stack) });
    throw error;
  }
}
