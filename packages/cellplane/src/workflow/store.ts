import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { assert } from "../base/assert.ts";
import { systemClock } from "../base/clock.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import { newId } from "../base/ids.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { moves, next } from "./machine.ts";
import { finalStates, isFinal, type Json, type Lock, type Operation, type OperationLogLine, type OperationStep, type RunState, runStates, type StartableWorkflow } from "./model.ts";
import { describeError, type HeldRun, type Move } from "./plan.ts";

/** Told when a run may be claimed. */
export const dueChannel = "cellplane_run_due";
/** Told the id of a run that a person wants paused or cancelled. */
export const askedChannel = "cellplane_run_asked";
/** Told the id of a run that is final or waits for a person. */
const settledChannel = "cellplane_run_settled";

const cancelled = describeError(fail("cancelled", {}));
const final = finalStates.map((state) => `'${state}'`).join(", ");
const settled = `${final}, 'parked'`;
const isSettled = (state: RunState): boolean => isFinal(state) || state === "parked";

// ── starting ────────────────────────────────────────────────────────────────────────────────────────────────────────

export interface StartOptions {
  id?: string;
  /** The same key twice is one run. */
  idempotencyKey?: string;
  parent?: string;
}

/**
 * Starts a run with the transaction that says so, or not at all. A repeat with the same id or key is the run there is.
 *
 * @returns the run's id
 * @throws CellplaneError invalid_input, idempotency_mismatch when the id or key is another run's
 */
export async function startRun<I>(tx: Queryable, workflow: StartableWorkflow<I>, input: I, { id, idempotencyKey, parent }: StartOptions = {}): Promise<string> {
  const parsed = workflow.input.safeParse(input);
  if (!parsed.success) throw fail("invalid_input", { issues: parsed.error.issues.map((issue) => ({ path: issue.path.join("."), message: issue.message })) });
  const locks = (workflow.locks?.(parsed.data) ?? []).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const params = [
    id ?? newId("op", systemClock.nowMs(), Math.random), workflow.name, workflow.version, workflow.subject(parsed.data), idempotencyKey ?? null, parent ?? null,
    JSON.stringify(parsed.data), workflow.steps[0]?.name, JSON.stringify(locks),
  ];
  const [started] = await tx.query<{ id: string }>(
    `with started as (
       insert into run (id, workflow, version, subject, key, parent, input, step, locks) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
       on conflict do nothing returning id)
     select id, pg_notify('${dueChannel}', '') from started`,
    params,
  );
  if (started) return started.id;
  const [existing] = await tx.query<{ id: string; same: boolean }>("select id, workflow = $3 and input = $4::jsonb as same from run where id = $1 or key = $2", [
    params[0], params[4], workflow.name, params[6],
  ]);
  if (existing?.same) return existing.id;
  throw fail("idempotency_mismatch", { key: idempotencyKey ?? id ?? "" });
}

/** The same child however often the step runs. */
export const childId = (parent: string, step: string, key: string): string => `op-${createHash("sha256").update(JSON.stringify([parent, step, key])).digest("hex").slice(0, 20)}`;

// ── a worker's life ─────────────────────────────────────────────────────────────────────────────────────────────────

const workerLockClass = 0x77726b72;
const nameLockClass = 0x6c6f636b;
/** A transaction whose process is stopped in its middle must not keep its locks; PostgreSQL ends it after this long. */
const idleInTransactionMs = 4000;

/** Registers a worker. `session` is a connection of its own: while it lives, so does the worker. */
export async function openWorker(session: Queryable, { build, workflows }: { build: string; workflows: string[] }): Promise<number> {
  // What a worker asks finds its rows by key. A plan made while the tables were small must not scan them when they have grown.
  await session.query("select set_config('enable_seqscan', 'off', false), set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false)");
  const [worker] = await session.query<{ id: number }>(
    `with opened as (insert into worker (build, workflows) values ($1, $2) returning id)
     select id, pg_advisory_lock($3, id::int) from opened`,
    [build, workflows, workerLockClass],
  );
  assert(worker, "an insert returns its row");
  return worker.id;
}

export interface Beat {
  /** False: others hold this worker for dead, and have its runs. */
  alive: boolean;
  /** Workers that are dead: their session is gone, or they were silent for too long. */
  dead: number[];
  /** Runs in hand that a person wants paused or cancelled. */
  asked: string[];
  /** Something may be claimed now. */
  due: boolean;
  /** When the next run falls due; null when none is known. */
  dueInMs: number | null;
}

/** One statement says "I live" and asks whatever an idle worker has to know. */
export async function beat(session: Queryable, worker: number, silentMsMax: number, versions: string[]): Promise<Beat> {
  const [answer] = await session.query<Beat>(
    `with beaten as (update worker set beat_at = clock_timestamp() where id = $1 and beat_at < clock_timestamp() - interval '500 ms')
     select exists (select from worker where id = $1) as alive,
            array(select w.id::int from worker w
                   where w.id <> $1 and (w.beat_at < clock_timestamp() - $2 * interval '1 ms' or pg_try_advisory_xact_lock_shared($3, w.id::int))) as dead,
            array(select id from run where owner = $1 and asked is not null) as asked,
            exists (select from run where owner is null and due_at <= now() and workflow || '@' || version = any($4)) as due,
            (select extract(epoch from min(due_at) - clock_timestamp())::float8 * 1000 from run where owner is null and due_at > now()) as "dueInMs"`,
    [worker, silentMsMax, workerLockClass, versions],
  );
  assert(answer, "a select without from has one row");
  return answer;
}

// What a person asked for takes place when the worker lets go, whatever it wanted; only an end and a way back are stronger.
const stateOnLettingGo = (wanted: string): string =>
  `case when r.state = 'running' and r.asked = 'cancel' and ${wanted} not in (${final}) then 'undoing'
        when r.state = 'running' and r.asked = 'pause' and ${wanted} in ('pending', 'waiting') then 'paused'
        else ${wanted} end`;

/**
 * Gives the runs of these workers to whoever claims them next. Rows that are locked at this moment stay for the next call.
 *
 * @param crashed counts against the steps that were in work
 */
export async function releaseWorkers(session: Queryable, workers: number[], { crashed }: { crashed: boolean }): Promise<void> {
  await session.query(
    `with orphan as (
       select r.id, ${stateOnLettingGo("case r.state when 'undoing' then 'undoing' else 'pending' end")} as state
         from run r where r.owner = any($1) order by r.id for update skip locked)
     update run r set owner = null, state = orphan.state, due_at = case when orphan.state = 'paused' then null else clock_timestamp() end, asked = null,
            awaits = case when orphan.state not in ('paused', 'undoing') then r.awaits end,
            crashes = r.crashes + case when $2 and r.begun then 1 else 0 end,
            error = case when r.state <> 'undoing' and orphan.state = 'undoing' then $3 else r.error end
       from orphan where r.id = orphan.id`,
    [workers, crashed, JSON.stringify(cancelled)],
  );
  await session.query(
    `with gone as (delete from worker w where w.id = any($1) and not exists (select from run where owner = w.id))
     select pg_notify('${dueChannel}', '')`,
    [workers],
  );
}

/** Takes up to `countMax` runs in hand, the longest due first. What stands in the way of a first step is a lock at most. */
export async function claim(session: Queryable, worker: number, versions: string[], countMax: number): Promise<HeldRun[]> {
  return session.query<HeldRun>(
    `with due as (
       select id from run where owner is null and due_at <= now() and workflow || '@' || version = any($2)
        order by due_at limit $3 for update skip locked),
     held as (
       update run r set owner = $1, epoch = nextval('run_epoch'), due_at = null, waits_for = null,
              state = case r.state when 'undoing' then 'undoing' else 'running' end,
              begun = r.begun or (r.state <> 'undoing' and (r.locked or r.locks = '[]')),
              begun_at = case when r.begun then coalesce(r.begun_at, clock_timestamp()) else clock_timestamp() end,
              awaits = case when r.awaits = 'lock' then r.awaits end
         from due where r.id = due.id returning r.*)
     select id, workflow, version, subject, state, input, parent, epoch, step, begun, failures, crashes, signals, signals_seen as "signalsSeen", locks, locked,
            extract(epoch from clock_timestamp() - begun_at)::float8 * 1000 as "elapsedMs",
            (select coalesce(jsonb_agg(jsonb_build_object('name', s.name, 'state', s.state, 'result', s.result) order by s.ordinal), '[]') from run_step s where s.run = held.id) as records
       from held order by seq`,
    [worker, versions, countMax],
  );
}

// ── recording ───────────────────────────────────────────────────────────────────────────────────────────────────────

export interface Written {
  id: string;
  state: RunState;
  asked: "pause" | "cancel" | null;
}

export interface Writing {
  run: HeldRun;
  move: Move;
}

/** What one run's write looks like to PostgreSQL; the names are those of the columns below. */
const asItem = ({ run, move }: Writing) => ({
  id: run.id, epoch: run.epoch, from_step: run.step, event: move.event, state: move.state, step: move.step, begun: move.begun, failures: move.failures, keeps: move.keeps,
  due_ms: move.dueInMs, awaits: move.awaits, awaited: move.awaited, waits_for: move.waitsFor, signals_seen: run.signalsSeen,
  error: move.error, result: move.result, ratio: move.ratio, line: move.line, line_step: move.record?.name ?? run.step,
  name: move.record?.name, done: move.record?.state, attempts: move.record?.attempts, answer: move.record?.result, ordinal: run.records.length + 1,
});

/**
 * Writes what became of steps: record, next step with its intent, progress, and what people asked for, in one statement.
 * Each write is fenced: it happens only while the run is in this worker's hands, at the epoch of its claim and at the
 * step it was decided from. One that did not happen is missing from the answer.
 *
 * @param waits false: rows that someone else has locked are passed over as well
 */
export async function record(db: Queryable, worker: number, writings: Writing[], { waits }: { waits: boolean }): Promise<Written[]> {
  return db.query<Written>(
    `with item as (
       select * from jsonb_to_recordset($2) as i(
         id text, epoch bigint, from_step text, event text, state text, step text, begun boolean, failures int, keeps boolean, due_ms float8, awaits text, awaited text[],
         waits_for text, signals_seen int, error jsonb, result jsonb, ratio real, line text, line_step text, name text, done text, attempts int, answer jsonb, ordinal int)),
     held as (
       select r.id, case when i.keeps then i.state else ${stateOnLettingGo("i.state")} end as to_state
         from item i join run r on r.id = i.id
        where r.owner = $1 and r.epoch = i.epoch and r.step is not distinct from i.from_step
        order by r.id for update of r ${waits ? "" : "skip locked"}),
     written as (
       update run r set
              state = held.to_state, step = i.step, failures = i.failures,
              -- One that a person wants stopped goes no further: its next step is not begun.
              begun = i.begun and (not i.keeps or r.asked is null or held.to_state = 'undoing'),
              begun_at = case when i.name is null and i.event <> 'giveUp' then r.begun_at when i.keeps then clock_timestamp() end,
              crashes = case when i.event = 'release' then r.crashes else 0 end,
              owner = case when i.keeps then r.owner end,
              asked = case when i.keeps and held.to_state <> 'undoing' then r.asked end,
              due_at = case when i.keeps or held.to_state in (${final}, 'parked', 'paused') then null
                            when held.to_state <> i.state or (i.awaits = 'signal' and r.signals_seen > i.signals_seen) then clock_timestamp()
                            else clock_timestamp() + i.due_ms * interval '1 ms' end,
              awaits = case when held.to_state = i.state then i.awaits end, awaited = i.awaited,
              locked = r.locked and held.to_state not in (${final}),
              waits_for = case when held.to_state = i.state then i.waits_for end,
              error = case when i.error is not null then i.error when held.to_state = 'undoing' and r.state = 'running' then $3 else r.error end,
              result = coalesce(i.result, r.result), ratio = coalesce(i.ratio, r.ratio),
              finished_at = case when held.to_state in (${final}) then clock_timestamp() end
         from held join item i on i.id = held.id where r.id = held.id
       returning r.id, r.state, r.asked, r.owner, i.name, i.ordinal, i.done, i.attempts, i.answer, i.line, i.line_step),
     steps as (
       insert into run_step (run, name, ordinal, state, attempts, result)
       select id, name, ordinal, done, attempts, answer from written where name is not null
       on conflict (run, name) do update set state = excluded.state, attempts = excluded.attempts, at = excluded.at),
     lines as (insert into run_log (run, step, message) select id, line_step, line from written where line is not null)
     select id, state, asked, case when state in (${settled}) then pg_notify('${settledChannel}', id) when owner is null and state in ('pending', 'undoing') then pg_notify('${dueChannel}', '') end
       from written`,
    [worker, JSON.stringify(writings.map(asItem)), JSON.stringify(cancelled)],
  );
}

/** Writes moves in a transaction, and hands on the locks of the runs that have ended. */
export async function settle(tx: Tx, worker: number, writings: Writing[], { waits }: { waits: boolean }): Promise<Written[]> {
  const ending = writings.filter(({ run, move }) => isFinal(move.state) && run.locks.length > 0).map(({ run }) => run);
  await guard(tx, ending.flatMap((run) => run.locks.map((lock) => lock.name)));
  const written = await record(tx, worker, writings, { waits });
  const ended = new Set(written.filter(({ state }) => isFinal(state)).map(({ id }) => id));
  await unlock(tx, ending.filter((run) => ended.has(run.id)).map((run) => run.id));
  return written;
}

/** The parents of runs that have ended; call it when that is committed, for only then each of two last children sees the other. */
export async function wakeParents(db: Queryable, parents: string[]): Promise<void> {
  await wakeWhoseChildrenEnded(db, "p.id = any($1)", [parents]);
}

/** Runs whose waker was killed between two statements. */
export async function wakeForgotten(db: Queryable): Promise<void> {
  await wakeWhoseChildrenEnded(db, "true", []);
  await wakeQueues(db, null);
}

async function wakeWhoseChildrenEnded(db: Queryable, which: string, params: unknown[]): Promise<void> {
  await db.query(
    `with woken as (
       update run p set due_at = clock_timestamp()
        where ${which} and p.awaits = 'children' and p.due_at is null and p.owner is null and p.state in ('waiting', 'undoing')
          and not exists (select from run c where c.id = any(p.awaited) and c.finished_at is null) returning p.id)
     select pg_notify('${dueChannel}', '') from woken limit 1`,
    params,
  );
}

/** Writes a line of progress, and the ratio when there is one; a repeated line is not written again. */
export async function writeProgress(db: Queryable, worker: number, run: HeldRun, message: string, ratio: number | null): Promise<void> {
  await db.query(
    `with former as (select id, message from run where id = $1 and owner = $2 and epoch = $3 for update),
     written as (update run r set message = $4, ratio = coalesce($5, r.ratio) from former where r.id = former.id returning former.message as former)
     insert into run_log (run, step, message) select $1, $6, $4 from written where former <> $4`,
    [run.id, worker, run.epoch, message, ratio, run.step],
  );
}

/** Makes `step` the one in work, for a build that has put it where the run stood. */
export async function intend(db: Queryable, worker: number, run: HeldRun, step: string): Promise<boolean> {
  const rows = await db.query(
    `update run set step = $4, begun = state = 'running', begun_at = clock_timestamp()
      where id = $1 and owner = $2 and epoch = $3 and step is not distinct from $5 returning id`,
    [run.id, worker, run.epoch, step, run.step],
  );
  return rows.length > 0;
}

/** For a run of which it is not known what was last written: whoever claims it next will read it. */
export async function giveBack(db: Queryable, worker: number, run: HeldRun, afterMs: number): Promise<void> {
  await db.query(
    `with back as (
       update run r set owner = null, due_at = clock_timestamp() + $4 * interval '1 ms', state = case r.state when 'undoing' then 'undoing' else 'pending' end
        where id = $1 and owner = $2 and epoch = $3 returning id)
     select pg_notify('${dueChannel}', '') from back`,
    [run.id, worker, run.epoch, afterMs],
  );
}

/** The start of a step's transaction: it is worth beginning, and will not outlive its process. False: the run is in other hands. */
export async function beginStep(tx: Tx, worker: number, run: HeldRun, timeoutMs: number): Promise<boolean> {
  const rows = await tx.query(
    `select set_config('idle_in_transaction_session_timeout', $4, true), set_config('statement_timeout', $5, true)
       from run where id = $1 and owner = $2 and epoch = $3`,
    [run.id, worker, run.epoch, String(idleInTransactionMs), String(timeoutMs)],
  );
  return rows.length > 0;
}

/** Cancels what the run has started. @returns those of it that have not ended */
export async function cancelChildren(store: Store, run: string): Promise<string[]> {
  const open = await store.query<{ id: string }>("select id from run where parent = $1 and finished_at is null order by id", [run]);
  for (const { id } of open) {
    await store.transaction((tx) => cancelRun(tx, id)).catch((error: unknown) => {
      if (!(error instanceof CellplaneError && error.code === "wrong_state")) throw error;
    });
  }
  return open.map(({ id }) => id);
}

/** Deletes runs that ended longer ago than this. @returns how many */
export async function deleteFinalRuns(db: Queryable, { olderThanDays, countMax }: { olderThanDays: number; countMax: number }): Promise<number> {
  const rows = await db.query(
    `with old as (
       select id from run where finished_at < clock_timestamp() - $1 * interval '1 day' order by finished_at limit $2 for update skip locked),
     steps as (delete from run_step where run in (select id from old)),
     lines as (delete from run_log where run in (select id from old))
     delete from run where id in (select id from old) returning id`,
    [olderThanDays, countMax],
  );
  return rows.length;
}

// ── locks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Makes this transaction the only one that takes or frees these locks, always in one order. Everything about a lock is
 * read after it, so that no release is missed by someone who is just queueing.
 */
async function guard(tx: Tx, names: string[]): Promise<void> {
  await tx.query(
    `select set_config('idle_in_transaction_session_timeout', $3, true), array(
       select pg_advisory_xact_lock($1, key)::text from (select distinct hashtext(name) as key from unnest($2::text[]) as name order by 1) as keys)`,
    [nameLockClass, names, String(idleInTransactionMs)],
  );
}

export type LockAnswer = { kind: "locked"; epoch: number } | { kind: "queued"; lock: Lock; holders: string[] } | { kind: "fenced" };

/**
 * Takes the run's locks in their order. It keeps what it got when one is not to be had, and stands in that one's queue;
 * since everybody takes them in the same order, nobody waits in a circle. The queue is served oldest run first.
 *
 * With its locks the run gets a new epoch, greater than whatever the former holder had.
 */
export async function takeLocks(tx: Tx, worker: number, run: HeldRun): Promise<LockAnswer> {
  await guard(tx, run.locks.map((lock) => lock.name));
  const [taken] = await tx.query<{ epoch: number | null; blocked: number | null; holders: string[] }>(
    `with me as (select id, seq from run where id = $1 and owner = $4 and epoch = $5 for no key update),
     wanted as (
       select w.*, exists (select from run_lock l where l.name = w.name and l.run = $1) as mine,
              (select min(s) from generate_series(1, w.slots) s where not exists (select from run_lock l where l.name = w.name and l.slot = s)) as slot,
              (select count(*) from run_lock l where l.name = w.name)
                + (select count(*) from run q where q.awaits = 'lock' and q.awaited[1] = w.name and q.seq < me.seq) as before
         from me, unnest($2::text[], $3::int[]) with ordinality as w(name, slots, ordinality)),
     blocked as (select * from wanted where not mine and (slot is null or before >= slots) order by ordinality limit 1),
     taken as (
       insert into run_lock (name, slot, run) select w.name, w.slot, $1 from wanted w
        where not w.mine and w.ordinality < coalesce((select ordinality from blocked), 2147483647)),
     locked as (
       update run r set locked = true, awaits = null, begun = r.begun or r.state = 'running', epoch = nextval('run_epoch')
         from me where r.id = me.id and not exists (select from blocked) returning r.epoch)
     select (select epoch from locked) as epoch, b.ordinality as blocked, array(select l.run from run_lock l where l.name = b.name order by l.slot limit 3) as holders
       from (select) as one left join blocked b on true`,
    [run.id, run.locks.map((lock) => lock.name), run.locks.map((lock) => lock.slots), worker, run.epoch],
  );
  assert(taken, "a left join has a row");
  if (taken.epoch !== null) return { kind: "locked", epoch: taken.epoch };
  const lock = taken.blocked === null ? undefined : run.locks[taken.blocked - 1];
  return lock ? { kind: "queued", lock, holders: taken.holders.length > 0 ? taken.holders : ["runs before it"] } : { kind: "fenced" };
}

/** Frees what these runs hold, and wakes as many of those who wait as there are slots. The names must be guarded. */
async function unlock(tx: Tx, runs: string[]): Promise<void> {
  if (runs.length === 0) return;
  const freed = await tx.query<{ name: string }>("delete from run_lock where run = any($1) returning name", [runs]);
  await wakeQueues(tx, freed.map(({ name }) => name));
}

async function wakeQueues(db: Queryable, names: string[] | null): Promise<void> {
  if (names?.length === 0) return;
  await db.query(
    `with woken as (
       update run r set due_at = clock_timestamp()
         from (select q.id, q.awaited[2]::int - (select count(*) from run_lock l where l.name = q.awaited[1]) as free, row_number() over (partition by q.awaited[1] order by q.seq) as place
                 from run q where q.awaits = 'lock' and ($1::text[] is null or q.awaited[1] = any($1))) as queue
        where r.id = queue.id and queue.place <= queue.free and r.owner is null and r.due_at is null and r.state in ('waiting', 'undoing') returning r.id)
     select pg_notify('${dueChannel}', '') from woken limit 1`,
    [names],
  );
}

// ── what people ask for ─────────────────────────────────────────────────────────────────────────────────────────────

/** The next step is not begun; one in work is told to stop. @throws CellplaneError not_found, wrong_state */
export const pauseRun = (tx: Tx, id: string): Promise<Operation> => ask(tx, id, "pause");
/** A paused run goes on. @throws CellplaneError not_found, wrong_state */
export const resumeRun = (tx: Tx, id: string): Promise<Operation> => ask(tx, id, "resume");
/** What was done is taken back. @throws CellplaneError not_found, wrong_state */
export const cancelRun = (tx: Tx, id: string): Promise<Operation> => ask(tx, id, "cancel");
/** A parked run, or one that waits for its next try, tries at once; a failed undo is tried again. @throws CellplaneError not_found, wrong_state */
export const retryRun = (tx: Tx, id: string): Promise<Operation> => ask(tx, id, "retry");

type Verb = "pause" | "resume" | "cancel" | "retry";

async function ask(tx: Tx, id: string, verb: Verb): Promise<Operation> {
  const [known] = await tx.query<{ locks: Lock[] }>("select locks from run where id = $1", [id]);
  if (!known) throw fail("not_found", { what: "operation", name: id });
  const names = known.locks.map((lock) => lock.name);
  await guard(tx, names);
  const [run] = await tx.query<{ state: RunState; owner: number | null; untouched: boolean }>(
    `select state, owner, not begun and not exists (select from run_step where run = run.id) as untouched from run where id = $1 for update`,
    [id],
  );
  if (!run) throw fail("not_found", { what: "operation", name: id });
  const to = next(run.state, verb);
  if (to === "refuse") throw fail("wrong_state", { what: "operation", name: id, state: run.state, wanted: statesThatAllow(verb) });

  if (run.owner !== null) {
    // Its worker hears of it and lets go; a run on its way back is not stopped.
    const asked = run.state === "undoing" || verb === "retry" ? "asked" : verb === "resume" ? "nullif(asked, 'pause')" : verb === "pause" ? "coalesce(asked, 'pause')" : "'cancel'";
    await tx.query(
      `with told as (update run set asked = ${asked} where id = $1 returning asked), line as (insert into run_log (run, message) values ($1, $2))
       select pg_notify('${askedChannel}', $1) from told where asked is not null`,
      [id, lineFor(verb)],
    );
  } else if (to !== run.state || (verb === "retry" && !isFinal(to))) {
    // What was never begun needs no worker to be taken back, and no build that knows it.
    const ends = verb === "cancel" && run.untouched;
    await tx.query(
      `with moved as (
         update run set state = $2, due_at = case when $2 in ('pending', 'undoing') then clock_timestamp() end, finished_at = case when $3 then clock_timestamp() end,
                asked = null, awaits = null, waits_for = null, failures = 0, crashes = 0, locked = locked and not $3,
                error = case when state = 'parked' and $2 = 'pending' then null else coalesce($4, error) end
          where id = $1 returning id, state),
       line as (insert into run_log (run, message) select id, $5 from moved)
       select pg_notify('${dueChannel}', ''), case when state in (${settled}) then pg_notify('${settledChannel}', id) end from moved`,
      [id, ends ? "undone" : to, ends, verb === "cancel" ? JSON.stringify(cancelled) : null, lineFor(verb)],
    );
    if (ends) await unlock(tx, [id]);
    await wakeQueues(tx, names);
  }
  return getOperation(tx, id);
}

const lineFor = (verb: Verb): string => `a person asked to ${verb} it`;
const statesThatAllow = (verb: Verb): string => runStates.filter((state) => moves[state][verb] !== "refuse").join(", ");

/** @throws CellplaneError not_found, wrong_state when it is final */
export async function signalRun(tx: Tx, id: string, name: string, payload: Json): Promise<Operation> {
  const [run] = await tx.query<{ state: RunState }>(
    `with told as (
       update run set signals = signals || jsonb_build_object($2::text, $3::jsonb), signals_seen = signals_seen + 1,
              due_at = case when owner is null and awaits = 'signal' and awaited[1] = $2 and state in ('waiting', 'undoing') then clock_timestamp() else due_at end
        where id = $1 and finished_at is null returning id),
     line as (insert into run_log (run, message) select id, 'signal ' || $2 from told),
     heard as (select pg_notify('${dueChannel}', '') from told)
     select state, (select count(*) from heard) from run where id = $1`,
    [id, name, JSON.stringify(payload)],
  );
  if (!run) throw fail("not_found", { what: "operation", name: id });
  if (isFinal(run.state)) throw fail("wrong_state", { what: "operation", name: id, state: run.state, wanted: "an operation that is not final" });
  return getOperation(tx, id);
}

// ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// A run that nobody who lives can claim says so, instead of seeming about to move.
const operationColumns = `
  r.id, r.workflow, r.version, r.subject, r.state, case when r.finished_at is null then r.step end as step, r.ratio, r.message, r.asked, r.error, r.result, r.parent,
  case when r.owner is null and r.due_at <= now()
        and not exists (select from worker w where r.workflow || '@' || r.version = any(w.workflows) and w.beat_at > clock_timestamp() - interval '10 seconds')
       then 'no running build knows ' || r.workflow || ' version ' || r.version else r.waits_for end as "waitsFor",
  r.created_at as "createdAt", r.finished_at as "finishedAt"`;

type OperationRow = Omit<Operation, "createdAt" | "finishedAt"> & { createdAt: Date; finishedAt: Date | null };

const asOperation = (row: OperationRow): Operation => ({ ...row, createdAt: row.createdAt.toISOString(), finishedAt: row.finishedAt?.toISOString() ?? null });

/** @throws CellplaneError not_found */
export async function getOperation(db: Queryable, id: string): Promise<Operation> {
  const [row] = await db.query<OperationRow>(`select ${operationColumns} from run r where r.id = $1`, [id]);
  if (!row) throw fail("not_found", { what: "operation", name: id });
  return asOperation(row);
}

export interface OperationFilter {
  /** "open": whatever is not final. */
  state?: RunState | "open" | undefined;
  subject?: string | undefined;
  workflow?: string | undefined;
  parent?: string | undefined;
  limit?: number | undefined;
  /** The last operation of the page before. */
  cursor?: string | undefined;
}

/** Newest first. */
export async function listOperations(db: Queryable, { state, subject, workflow, parent, limit = 100, cursor }: OperationFilter = {}): Promise<{ items: Operation[]; nextCursor: string | null }> {
  const rows = await db.query<OperationRow>(
    `select ${operationColumns} from run r
      where ($1::text is null or r.seq < (select seq from run where id = $1)) and ($2::text is null or r.subject = $2) and ($3::text is null or r.workflow = $3) and ($4::text is null or r.parent = $4)
        and ($5::text is null or r.state = any(case when $5 = 'open' then $6::text[] else array[$5] end))
      order by r.seq desc limit $7`,
    [cursor ?? null, subject ?? null, workflow ?? null, parent ?? null, state ?? null, runStates.filter((state) => !isFinal(state)), limit + 1],
  );
  return { items: rows.slice(0, limit).map(asOperation), nextCursor: rows.length > limit ? (rows[limit - 1]?.id ?? null) : null };
}

/** How many there are in each state that has any. */
export const countOperations = (db: Queryable): Promise<{ state: RunState; count: number }[]> => db.query("select state, count(*) as count from run group by state order by state");

/** In the order in which they were done. */
export async function readSteps(db: Queryable, id: string): Promise<OperationStep[]> {
  const rows = await db.query<Omit<OperationStep, "at"> & { at: Date }>("select name, state, attempts, result, at from run_step where run = $1 order by ordinal", [id]);
  return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
}

/** Lines after the cursor; only those before which no other can still appear. */
export async function readLog(db: Queryable, id: string, { after = "0.0", limit = 100 }: { after?: string | undefined; limit?: number | undefined } = {}): Promise<OperationLogLine[]> {
  const match = /^(\d+)\.(\d+)$/.exec(after);
  if (!match) throw fail("invalid_input", { issues: [{ path: "after", message: "this is no cursor of an operation's log" }] });
  const rows = await db.query<{ cursor: string; at: Date; step: string | null; message: string }>(
    `select xid || '.' || id as cursor, at, step, message from run_log
      where run = $1 and (xid, id) > ($2::text::xid8, $3::bigint) and xid < pg_snapshot_xmin(pg_current_snapshot())
      order by xid, id limit $4`,
    [id, match[1], match[2], limit],
  );
  return rows.map((row) => ({ ...row, at: row.at.toISOString() }));
}

/**
 * Until the operation is final or waits for a person.
 *
 * @throws CellplaneError not_found, wait_timed_out
 */
export async function waitForOperation(store: Store, id: string, { timeoutMs, signal }: { timeoutMs: number; signal?: AbortSignal }): Promise<Operation> {
  const deadlineMs = performance.now() + timeoutMs;
  let told = new AbortController();
  const stop = store.listen(settledChannel, (payload) => {
    if (payload === id || payload === "") told.abort();
  });
  try {
    for (;;) {
      told = new AbortController();
      const operation = await getOperation(store, id);
      if (isSettled(operation.state)) return operation;
      signal?.throwIfAborted();
      const leftMs = deadlineMs - performance.now();
      if (leftMs <= 0) throw fail("wait_timed_out", { operation: id, afterMs: timeoutMs });
      // A notification can be lost with its connection, so it is looked at now and then in any case.
      await sleep(Math.min(leftMs, 1000), undefined, { signal: AbortSignal.any([told.signal, ...(signal ? [signal] : [])]) }).catch(() => undefined);
    }
  } finally {
    stop();
  }
}
