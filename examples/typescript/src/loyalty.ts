/** The business of this service: points that customers redeem and are awarded. It knows nothing of keys and repeated calls. */

import type { Database } from "./database.js";
import { Rejected } from "./errors.js";
import type { AwardPoints, AwardPoints__Output } from "./generated/loyalty/v1/AwardPoints.js";
import type { PointsAwarded, PointsAwarded__Output } from "./generated/loyalty/v1/PointsAwarded.js";
import type { PointsRedeemed, PointsRedeemed__Output } from "./generated/loyalty/v1/PointsRedeemed.js";
import type { RedeemPoints, RedeemPoints__Output } from "./generated/loyalty/v1/RedeemPoints.js";
import { businessCodec, type Codec } from "./wire.js";

/** One operation that sagas may call. */
export interface Action<InT, OutT> {
  readonly input: Codec<never, InT>;
  readonly output: Codec<OutT, unknown>;
  /** Does it. Throws Rejected. */
  execute(database: Database, input: InT): Promise<OutT>;
  /** Undoes it; absent if it cannot be undone. */
  compensate?(database: Database, output: Buffer): Promise<void>;
}

const POINTS_MAX = 1_000_000_000;

const redeemPoints = businessCodec<RedeemPoints, RedeemPoints__Output>("loyalty.v1.RedeemPoints");
const pointsRedeemed = businessCodec<PointsRedeemed, PointsRedeemed__Output>("loyalty.v1.PointsRedeemed");
const awardPoints = businessCodec<AwardPoints, AwardPoints__Output>("loyalty.v1.AwardPoints");
const pointsAwarded = businessCodec<PointsAwarded, PointsAwarded__Output>("loyalty.v1.PointsAwarded");

/** Takes points off an account; gives them back if the saga turns back. */
export const redeem: Action<RedeemPoints__Output, PointsRedeemed> = {
  input: redeemPoints,
  output: pointsRedeemed,

  async execute(database, { customer_id, points }) {
    checkPoints(points);
    const taken = await database.query<{ points: number }>(
      "UPDATE account SET points = points - $2 WHERE customer_id = $1 AND points >= $2 RETURNING points",
      [customer_id, points],
    );
    const [left] = taken.rows;
    if (left === undefined) throw new Rejected("NOT_ENOUGH_POINTS", `${customer_id} does not have ${points} points`);
    const id = await numberOf(database, "INSERT INTO redemption (customer_id, points) VALUES ($1, $2) RETURNING id", [customer_id, points]);
    return { redemption_id: id, points_left: left.points };
  },

  async compensate(database, output) {
    const { redemption_id } = pointsRedeemed.decode(output);
    await database.query(
      `WITH returned AS
         (UPDATE redemption SET is_returned = TRUE WHERE id = $1 AND NOT is_returned RETURNING customer_id, points)
       UPDATE account SET points = account.points + returned.points FROM returned WHERE account.customer_id = returned.customer_id`,
      [redemption_id],
    );
  },
};

/** Puts points on an account. Sagas do it last: it cannot be undone, since the customer may have spent them. */
export const award: Action<AwardPoints__Output, PointsAwarded> = {
  input: awardPoints,
  output: pointsAwarded,

  async execute(database, { customer_id, points }) {
    checkPoints(points);
    const given = await database.query<{ points: number }>(
      `INSERT INTO account (customer_id, points) VALUES ($1, $2)
       ON CONFLICT (customer_id) DO UPDATE SET points = account.points + excluded.points RETURNING points`,
      [customer_id, points],
    );
    const id = await numberOf(database, "INSERT INTO award (customer_id, points) VALUES ($1, $2) RETURNING id", [customer_id, points]);
    return { award_id: id, points: given.rows[0]?.points ?? 0 };
  },
};

function checkPoints(points: number): void {
  if (points < 1 || points > POINTS_MAX) throw new Rejected("POINTS_INVALID", `expected 1 to ${POINTS_MAX} points, found ${points}`);
}

async function numberOf(database: Database, insert: string, values: readonly unknown[]): Promise<number> {
  const made = await database.query<{ id: string }>(insert, [...values]);
  return Number(made.rows[0]?.id);
}
