/** The gRPC face of the service: `saga.v1.ParticipantService`. */

import { status as Code, type Deadline, type handleUnaryCall, type ServerUnaryCall, type UntypedServiceImplementation } from "@grpc/grpc-js";

import type { Barrier } from "./barrier.js";
import { plainStatus, refusal, StatusError } from "./errors.js";
import type { CompensateRequest__Output } from "./generated/saga/v1/CompensateRequest.js";
import type { CompensateResponse } from "./generated/saga/v1/CompensateResponse.js";
import type { DescribeRequest__Output } from "./generated/saga/v1/DescribeRequest.js";
import type { DescribeResponse } from "./generated/saga/v1/DescribeResponse.js";
import type { ExecuteRequest__Output } from "./generated/saga/v1/ExecuteRequest.js";
import type { ExecuteResponse } from "./generated/saga/v1/ExecuteResponse.js";
import type { ParticipantDescription } from "./generated/saga/v1/ParticipantDescription.js";
import { idsOf, log } from "./log.js";
import { award, redeem, type Action } from "./loyalty.js";
import { readCall, readInput, type Request } from "./requests.js";
import { businessFiles, pack } from "./wire.js";

const NAME = "loyalty";

/** Each action pairs two types of its own, which only the wire connects. */
type AnyAction = Action<any, any>;

const ACTIONS: ReadonlyMap<string, AnyAction> = new Map<string, AnyAction>([
  ["redeem", redeem],
  ["award", award],
]);

/** What the service says of itself. `retentionS`: how long keys are remembered, in seconds. */
export function describe(retentionS: number): ParticipantDescription {
  return {
    name: NAME,
    actions: [...ACTIONS].map(([name, action]) => ({
      name,
      input_type: action.input.name,
      output_type: action.output.name,
      compensatable: action.compensate !== undefined,
      effect: "EFFECT_DATABASE",
    })),
    descriptors: { file: businessFiles() },
    guarantee: "GUARANTEE_EFFECT_ONCE",
    retention: { seconds: retentionS },
  };
}

/** The methods of the service. `Exchange` is left out: whoever calls it is told UNIMPLEMENTED, and calls one by one. */
export function participantService(barrier: Barrier, description: ParticipantDescription): UntypedServiceImplementation {
  return {
    Describe: answering<DescribeRequest__Output, DescribeResponse>(async ({ request }) => {
      if (request.participant !== "" && request.participant !== NAME) {
        throw new StatusError(refusal(Code.NOT_FOUND, "REQUEST_INVALID", `expected ${NAME}, found ${request.participant}`));
      }
      return { description };
    }),
    Execute: answering<ExecuteRequest__Output, ExecuteResponse>((call) =>
      logged("execute", call, () => execute(barrier, call.request, call.getDeadline())),
    ),
    Compensate: answering<CompensateRequest__Output, CompensateResponse>((call) =>
      logged("compensate", call, () => compensate(barrier, call.request, call.getDeadline())),
    ),
  };
}

async function execute(barrier: Barrier, request: ExecuteRequest__Output, deadline: Deadline): Promise<ExecuteResponse> {
  const action = actionOf(request);
  const call = readCall(request, request.key, deadline);
  const input: unknown = readInput(action.input, request.action, request.input);
  return barrier.execute(call, async (database) => pack(action.output, await action.execute(database, input)));
}

async function compensate(barrier: Barrier, request: CompensateRequest__Output, deadline: Deadline): Promise<CompensateResponse> {
  const { input, compensate: undo } = actionOf(request);
  if (undo === undefined) throw unknownAction(`${request.action} cannot be undone`);
  const call = readCall(request, request.execute_key, deadline);
  readInput(input, request.action, request.input);
  return barrier.compensate(call, request.succeeded?.output ?? null, (database, output) => undo(database, output.value));
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
async function logged<RequestT extends Request, AnswerT extends ExecuteResponse | CompensateResponse>(
  direction: string,
  call: ServerUnaryCall<RequestT, AnswerT>,
  answer: () => Promise<AnswerT>,
): Promise<AnswerT> {
  const told = `${direction} ${call.request.action}`;
  const ids = idsOf(call.request, call.metadata);
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

/** A method that answers by a promise. What nobody foresaw ends the call with UNKNOWN: it is asked again with the same key. */
function answering<RequestT, AnswerT>(answer: (call: ServerUnaryCall<RequestT, AnswerT>) => Promise<AnswerT>): handleUnaryCall<RequestT, AnswerT> {
  return (call, callback) => {
    answer(call).then(
      (answered) => callback(null, answered),
      (error: unknown) => callback(error instanceof StatusError ? error : new StatusError(plainStatus(Code.UNKNOWN, String(error)))),
    );
  };
}
