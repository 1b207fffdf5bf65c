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
  let isTold: boolean | undefined; // undefined: neither that it is registered is in the log, nor that it is not
  while (!stopped.aborted) {
    const error = await register(client, place.target, description);
    failures = error === null ? 0 : failures + 1;
    const isRegistered = error === null;
    if (isRegistered !== isTold) tellChange(place, error);
    isTold = isRegistered;
    const pauseMs = isRegistered ? (TTL_S * 1_000) / REPEATS_PER_TTL : backoffMs(failures);
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

function tellChange(place: Place, error: Error | null): void {
  if (error === null) log("info", "registered", { ...place });
  else log("warn", "not registered, trying again", { ...place, error: error.message });
}

/** Doubles from the first to the longest, drawn from its upper half. */
function backoffMs(failures: number): number {
  const wholeMs = Math.min(BACKOFF_FIRST_MS * 2 ** Math.min(failures - 1, 10), BACKOFF_MAX_MS);
  return wholeMs * (0.5 + Math.random() / 2);
}
