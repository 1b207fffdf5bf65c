-- What the service remembers. Run at every start; it changes nothing that is there.

-- The barrier: one row per key of an execution. The columns for effects outside of the database are left out: there are none here.
CREATE TABLE IF NOT EXISTS saga_barrier (
  key           VARCHAR(255) PRIMARY KEY,
  saga_id       VARCHAR(36)  NOT NULL,
  step_id       VARCHAR(64)  NOT NULL,
  action        VARCHAR(129) NOT NULL,
  fingerprint   BYTEA        NOT NULL,
  execution     VARCHAR(9)   NOT NULL,
  reply         BYTEA,
  compensation  VARCHAR(7)   NOT NULL DEFAULT 'NONE',
  handler_ran   BOOLEAN      NOT NULL DEFAULT FALSE,
  created_at_us BIGINT       NOT NULL,
  updated_at_us BIGINT       NOT NULL
);
CREATE INDEX IF NOT EXISTS ix_saga_barrier_created_at_us ON saga_barrier (created_at_us);

-- The business.
CREATE TABLE IF NOT EXISTS account (
  customer_id VARCHAR(64) PRIMARY KEY,
  points      INTEGER NOT NULL CHECK (points >= 0)
);
CREATE TABLE IF NOT EXISTS redemption (
  id          BIGSERIAL PRIMARY KEY,
  customer_id VARCHAR(64) NOT NULL REFERENCES account,
  points      INTEGER NOT NULL,
  is_returned BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE TABLE IF NOT EXISTS award (
  id          BIGSERIAL PRIMARY KEY,
  customer_id VARCHAR(64) NOT NULL REFERENCES account,
  points      INTEGER NOT NULL
);
