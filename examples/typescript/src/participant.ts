/** The gRPC face of the service: `saga.v1.ParticipantService`. */

import { status as Code, type handleUnaryCall, type ServerUnaryCall } from "@grpc/grpc-js";

import type { Barrier } from "./barrier.js";
import { ACTIONS, compensate, execute, NAME, type Circumstances } from "./calls.js";
import { refusal, StatusError, statusErrorOf } from "./errors.js";
import type { Streams } from "./exchange.js";
import type { ParticipantDescription } from "./generated/saga/v1/ParticipantDescription.js";
import type { ParticipantServiceHandlers } from "./generated/saga/v1/ParticipantService.js";
import { businessFiles } from "./wire.js";

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
    exchange: true,
  };
}

/** The methods of the service. */
export function participantService(barrier: Barrier, streams: Streams, description: ParticipantDescription): ParticipantServiceHandlers {
  return {
    Describe: answering(async ({ request }) => {
      if (request.participant !== "" && request.participant !== NAME) {
        throw new StatusError(refusal(Code.NOT_FOUND, "REQUEST_INVALID", `expected ${NAME}, found ${request.participant}`));
      }
      return { description };
    }),
    Execute: answering((call) => execute(barrier, call.request, circumstancesOf(call))),
    Compensate: answering((call) => compensate(barrier, call.request, circumstancesOf(call))),
    Exchange: (stream) => streams.open(stream),
  };
}

function circumstancesOf(call: ServerUnaryCall<unknown, unknown>): Circumstances {
  return { deadline: call.getDeadline(), traceparent: String(call.metadata.get("traceparent")[0] ?? "") };
}

/** A method that answers by a promise. */
function answering<RequestT, AnswerT>(
  answer: (call: ServerUnaryCall<RequestT, AnswerT>) => Promise<AnswerT>,
): handleUnaryCall<RequestT, AnswerT> {
  return (call, callback) => {
    answer(call).then(
      (answered) => callback(null, answered),
      (error: unknown) => callback(statusErrorOf(error)),
    );
  };
}
