/** Keeps the service known to a coordinator: registered again and again before that lapses, and after a restart of either. */

import { setTimeout as sleep } from "node:timers/promises";

import { credentials } from "@grpc/grpc-js";

import type { SagaServiceClient } from "./generated/saga/v1/SagaService.js";
import type { ParticipantDescription } from "./generated/saga/v1/ParticipantDescription.js";
import { log } from "./log.js";
import { SagaService } from "./wire.js";

/** How long a registration holds, in seconds. */
const TTL_S = 30;
/** Two repetitions may be lost before it lapses. */
const REPEATS_PER_TTL = 3;
const CALL_TIME_LIMIT_MS = 5_000;
const BACKOFF_FIRST_MS = 200;
const BACKOFF_MAX_MS = 5_000;

export interface Place {
  /** gRPC target of the coordinator. Example: "127.0.0.1:7700". */
  readonly coordinator: string;
  /** gRPC target that the coordinator is to call. */
  readonly target: string;
}

/** Registers until `stopped`. Never throws: a coordinator that is away or refuses is asked again. */
export async function keepRegistered(place: Place, description: ParticipantDescription, stopped: AbortSignal): Promise<void> {
  const client = new SagaService(place.coordinator, credentials.createInsecure(), { "grpc.max_reconnect_backoff_ms": 1_000 });
  let failures = 0;
  while (!stopped.aborted) {
    const error = await register(client, place.target, description);
    if (error === null && failures >= 0) log("info", "registered", { coordinator: place.coordinator, target: place.target });
    if (error !== null && failures <= 0) log("warn", "not registered", { coordinator: place.coordinator, error: error.message });
    failures = error === null ? -1 : Math.max(failures, 0) + 1;
    const pauseMs = error === null ? (TTL_S * 1_000) / REPEATS_PER_TTL : backoffMs(failures);
    await sleep(pauseMs, undefined, { signal: stopped }).catch(() => undefined);
  }
  client.close();
}

function register(client: SagaServiceClient, target: string, description: ParticipantDescription): Promise<Error | null> {
  const request = { target, description, ttl: { seconds: TTL_S } };
  return new Promise((resolve) => {
    client.RegisterParticipant(request, { deadline: Date.now() + CALL_TIME_LIMIT_MS }, (error) => resolve(error));
  });
}

/** Doubles from the first to the longest, drawn from its upper half. */
function backoffMs(failures: number): number {
  const wholeMs = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(failures - 1, 10), BACKOFF_MAX_MS);
  return wholeMs * (0.5 + Math.random() / 2);
}
