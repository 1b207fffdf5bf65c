/** Serves the loyalty service until SIGTERM or SIGINT. */

import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

import { Server, ServerCredentials } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import { Pool } from "pg";

import { Barrier } from "./barrier.js";
import { Streams } from "./exchange.js";
import { log } from "./log.js";
import { describe, participantService } from "./participant.js";
import { keepRegistered } from "./registration.js";
import { MESSAGE_BYTES_MAX } from "./requests.js";
import { readSettings, type Settings } from "./settings.js";
import { ParticipantService } from "./wire.js";

const SERVICE = "saga.v1.ParticipantService";
/** Calls at once on the database; a call that waits for a lock holds one. */
const CONNECTIONS_MAX = 20;
const CONNECT_TIME_LIMIT_MS = 5_000;
/** How long calls under way may take to end when the service stops. */
const DRAIN_TIME_LIMIT_MS = 10_000;
const FORGET_EVERY_MS = 600_000;
/** Any number, the same in all replicas: one at a time makes the tables. */
const SCHEMA_LOCK = 7_721;

async function main(settings: Settings): Promise<void> {
  const pool = new Pool({ connectionString: settings.database, max: CONNECTIONS_MAX, connectionTimeoutMillis: CONNECT_TIME_LIMIT_MS });
  pool.on("error", (error) => log("warn", "an idle connection to the database was lost", { error: error.message }));
  await makeTables(pool);
  const barrier = new Barrier(pool, settings.retentionS);
  const streams = new Streams(barrier);
  const description = describe(settings.retentionS);

  const server = new Server({ "grpc.max_receive_message_length": MESSAGE_BYTES_MAX, "grpc.max_send_message_length": MESSAGE_BYTES_MAX });
  server.addService(ParticipantService.service, participantService(barrier, streams, description));
  const health = new HealthImplementation({ "": "SERVING", [SERVICE]: "SERVING" });
  health.addToServer(server);
  await promisify(server.bindAsync.bind(server))(settings.address, ServerCredentials.createInsecure());
  log("info", "serving", { address: settings.address });

  const stopping = new AbortController();
  const place = { coordinator: settings.coordinator, target: settings.advertise };
  const background = [
    forgetOldKeys(barrier, stopping.signal),
    ...(settings.coordinator === "" ? [] : [keepRegistered(place, description, stopping.signal)]),
  ];

  await new Promise<void>((resolve) => {
    process.once("SIGTERM", () => resolve());
    process.once("SIGINT", () => resolve());
  });
  log("info", "stopping");
  for (const name of ["", SERVICE]) health.setStatus(name, "NOT_SERVING");
  stopping.abort();
  streams.drain();
  await stop(server);
  await Promise.all(background);
  await pool.end();
}

async function makeTables(pool: Pool): Promise<void> {
  const schema = await readFile(new URL("../schema.sql", import.meta.url), "utf8");
  await pool.query(`BEGIN; SELECT pg_advisory_xact_lock(${SCHEMA_LOCK}); ${schema} COMMIT`);
}

async function forgetOldKeys(barrier: Barrier, stopped: AbortSignal): Promise<void> {
  while (!stopped.aborted) {
    try {
      while ((await barrier.forget()) > 0 && !stopped.aborted);
    } catch (error) {
      log("warn", "old keys stay until the next round", { error: String(error) });
    }
    await sleep(FORGET_EVERY_MS, undefined, { signal: stopped }).catch(() => undefined);
  }
}

/** Takes no new calls, and lets those under way end. What is cut short is rolled back, and asked again with the same key. */
async function stop(server: Server): Promise<void> {
  const ended = promisify(server.tryShutdown.bind(server))();
  const isEnded = await Promise.race([ended.then(() => true), sleep(DRAIN_TIME_LIMIT_MS, false, { ref: false })]);
  if (!isEnded) server.forceShutdown();
}

await main(readSettings(process.env));
