/** What the environment says. */

export interface Settings {
  /** URL of a PostgreSQL database of this service. */
  readonly database: string;
  /** Where to listen. */
  readonly address: string;
  /** What the coordinator is to dial, if that is not `address`. */
  readonly advertise: string;
  /** Where to register; empty if the coordinator knows this service by its configuration. */
  readonly coordinator: string;
  /** How long keys are remembered, in seconds. */
  readonly retentionS: number;
}

const RETENTION_DAYS = 30;

export function readSettings(environment: NodeJS.ProcessEnv): Settings {
  const address = environment["LOYALTY_ADDRESS"] ?? "127.0.0.1:7721";
  return {
    database: environment["LOYALTY_DATABASE"] ?? "postgresql://localhost/loyalty",
    address,
    advertise: environment["LOYALTY_ADVERTISE"] ?? address,
    coordinator: environment["SAGA_ADDRESS"] ?? "127.0.0.1:7700",
    retentionS: RETENTION_DAYS * 86_400,
  };
}
