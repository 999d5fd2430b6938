import { createHash, randomBytes } from "node:crypto";
import { assert } from "../base/assert.ts";
import { type CellRoute, type IdentifyRule, type LookupSpace, lookupSpaces, type ReadyRule, readyRules, type RouteLookup, stateOf } from "./model.ts";

/**
 * The exact table of a router: key → tenant → packed entry, in shared memory, about 40 bytes per tenant.
 *
 * Two levels, so that a tenant with five keys moves with one store. A key's bytes are always compared: a bare fingerprint
 * would let someone craft a name that collides into another tenant's cell. The hash is seeded per process, so that nobody
 * outside can aim keys at one slot. One writer; readers of other threads may share the memory later (entries are written
 * with one atomic store).
 *
 * Segments grow one at a time, so the longest pause while growing is that of a 256th of the table.
 */

const segmentCount = 256;
const pageBits = 12;
const pageSize = 1 << pageBits;
const nameBytesMax = 63;
const keyBytesMax = 255;
/** Names take the low half of the slot values, key records the high half. */
const recordBit = 0x8000_0000;
const recordHead = 6;
const free = 0;
const buried = 1;

export class RouteTable implements RouteLookup {
  rules: readonly ReadyRule[] = [];
  /** Tenants with a route, and keys (the tenants' own names not counted). */
  tenants = 0;
  keys = 0;
  /** Tenants on hold. */
  readonly held = new Set<string>();
  /** Told of a tenant's number that is free to be given to another one. */
  onForget: ((tenant: number) => void) | null = null;
  readonly #cells: (CellRoute | undefined)[] = [];
  readonly #pages: Page[] = [];
  readonly #freeIds: number[] = [];
  #nextId = 0;
  readonly #segments: Segment[];
  readonly #keysIn = new Uint32Array(lookupSpaces.length);
  readonly #seed0: number;
  readonly #seed1: number;

  /** @param expected names and keys to make room for at once */
  constructor(expected = 0, seed: Uint8Array = randomBytes(8)) {
    const seeds = new DataView(seed.buffer, seed.byteOffset, 8);
    this.#seed0 = seeds.getInt32(0);
    this.#seed1 = seeds.getInt32(4);
    this.#segments = Array.from({ length: segmentCount }, () => new Segment(capacityFor(expected / segmentCount)));
  }

  setRules(rules: readonly IdentifyRule[]): void {
    this.rules = readyRules(rules);
  }

  setCell(cell: CellRoute): void {
    this.#cells[cell.index] = cell;
  }

  removeCell(index: number): void {
    this.#cells[index] = undefined;
  }

  cellOf(index: number): CellRoute | undefined {
    return this.#cells[index];
  }

  cells(): CellRoute[] {
    return this.#cells.filter((cell) => cell !== undefined);
  }

  /** @param entry from `packEntry`; 0 takes the tenant's route away */
  setTenant(bytes: Uint8Array, start: number, end: number, entry: number): void {
    let id = this.#locate(0, bytes, start, end);
    if (id < 0) {
      if (entry === 0) return;
      id = this.#addTenant(bytes, start, end);
    }
    const page = this.#page(id);
    const at = id & (pageSize - 1);
    this.tenants += Number(entry !== 0) - Number(page.hasEntry(at));
    page.setEntry(at, entry);
    if (entry !== 0 && stateOf(entry) === "hold") this.held.add(latin1(bytes, start, end));
    else if (this.held.size > 0) this.held.delete(latin1(bytes, start, end));
    if (entry === 0) this.#forgetIfUnused(id);
  }

  /** A key may come before its tenant's route; until that comes it names nobody. */
  setKey(space: LookupSpace, bytes: Uint8Array, start: number, end: number, name: Uint8Array, nameStart: number, nameEnd: number): void {
    assert(space !== "name" && end - start <= keyBytesMax, "a key has at most 255 bytes");
    const number = lookupSpaces.indexOf(space);
    let id = this.#locate(0, name, nameStart, nameEnd);
    if (id >= 0 && this.#locate(number, bytes, start, end) === id) return;
    this.removeKey(space, bytes, start, end);
    if (id < 0) id = this.#addTenant(name, nameStart, nameEnd);
    const hash = this.#hash(number, bytes, start, end);
    const segment = this.#roomFor(hash, recordHead + end - start);
    segment.insert(hash, segment.addRecord(number, id, bytes, start, end));
    this.#page(id).addKeys(id & (pageSize - 1), 1);
    this.#keysIn[number] = (this.#keysIn[number] ?? 0) + 1;
    this.keys++;
  }

  removeKey(space: LookupSpace, bytes: Uint8Array, start: number, end: number): void {
    const number = lookupSpaces.indexOf(space);
    const hash = this.#hash(number, bytes, start, end);
    const segment = this.#segment(hash);
    const slot = this.#slotOf(segment, hash, number, bytes, start, end);
    if (slot < 0) return;
    const record = (segment.slots[slot] ?? 0) - recordBit;
    const id = segment.tenantAt(record);
    segment.remove(slot);
    segment.wasted += recordHead + end - start;
    this.#page(id).addKeys(id & (pageSize - 1), -1);
    this.#keysIn[number] = (this.#keysIn[number] ?? 0) - 1;
    this.keys--;
    this.#forgetIfUnused(id);
  }

  find(space: LookupSpace, bytes: Uint8Array, start: number, end: number): number {
    const number = lookupSpaces.indexOf(space);
    if (number > 0 && this.#keysIn[number] === 0) return -1;
    const id = this.#locate(number, bytes, start, end);
    return id < 0 || this.entryOf(id) === 0 ? -1 : id;
  }

  findSecret(bytes: Uint8Array, start: number, end: number): number {
    if (this.#keysIn[lookupSpaces.indexOf("apikey")] === 0) return -1;
    const digest = Buffer.from(createHash("sha256").update(bytes.subarray(start, end)).digest("hex"), "latin1");
    return this.find("apikey", digest, 0, digest.length);
  }

  entryOf(id: number): number {
    const page = this.#pages[id >>> pageBits];
    return page === undefined ? 0 : page.entry(id & (pageSize - 1));
  }

  nameOf(id: number): string {
    const page = this.#page(id);
    const name = page.nameRef(id & (pageSize - 1));
    return latin1(page.names, name >>> 6, (name >>> 6) + (name & 63));
  }

  /** Bytes of shared memory held. */
  byteLength(): number {
    return this.#pages.reduce((sum, page) => sum + page.byteLength(), 0) + this.#segments.reduce((sum, segment) => sum + segment.byteLength(), 0);
  }

  /** Every tenant with a route, by its number. May be left and taken up again while the table changes: no tenant that stays is missed. */
  *tenantIds(): Generator<number> {
    for (let id = 0; id < this.#nextId; id++) if (this.entryOf(id) !== 0) yield id;
  }

  /** Every key with the name of its tenant, whether that has a route or not. As a segment that changes meanwhile is left aside, call it in one go for an exact list. */
  *keyList(): Generator<{ space: LookupSpace; value: string; tenant: string }> {
    for (const segment of this.#segments) {
      for (const value of segment.slots) {
        if (value < recordBit) continue;
        const at = value - recordBit;
        const { space, start, end } = segment.recordAt(at);
        yield { space: lookupSpaces[space] ?? "name", value: latin1(segment.records, start, end), tenant: this.nameOf(segment.tenantAt(at)) };
      }
    }
  }

  // ── tenants ─────────────────────────────────────────────────────────────────────────────────────────────────────

  #page(id: number): Page {
    const page = this.#pages[id >>> pageBits];
    assert(page, "every number given out has its page");
    return page;
  }

  #addTenant(bytes: Uint8Array, start: number, end: number): number {
    assert(end > start && end - start <= nameBytesMax, "a tenant's name has 1 to 63 bytes");
    const id = this.#freeIds.pop() ?? this.#nextId++;
    const page = (this.#pages[id >>> pageBits] ??= new Page());
    page.setName(id & (pageSize - 1), bytes, start, end);
    const hash = this.#hash(0, bytes, start, end);
    this.#roomFor(hash, 0).insert(hash, id);
    return id;
  }

  /** A tenant stays known while it has a route or a key: the key must not come to name whoever gets the number next. */
  #forgetIfUnused(id: number): void {
    const page = this.#page(id);
    const at = id & (pageSize - 1);
    if (page.hasEntry(at) || page.keyCount(at) !== 0) return;
    const name = page.nameRef(at);
    const hash = this.#hash(0, page.names, name >>> 6, (name >>> 6) + (name & 63));
    const segment = this.#segment(hash);
    const slot = this.#slotOf(segment, hash, 0, page.names, name >>> 6, (name >>> 6) + (name & 63));
    assert(slot >= 0, "a known tenant's name is in the table");
    segment.remove(slot);
    page.dropName(at);
    this.#freeIds.push(id);
    this.onForget?.(id);
  }

  // ── the index of names and keys ─────────────────────────────────────────────────────────────────────────────────

  #segment(hash: number): Segment {
    return this.#segments[hash >>> 24] as Segment;
  }

  /** The tenant's number; −1 when nobody has this key. */
  #locate(space: number, bytes: Uint8Array, start: number, end: number): number {
    const hash = this.#hash(space, bytes, start, end);
    const segment = this.#segment(hash);
    const slot = this.#slotOf(segment, hash, space, bytes, start, end);
    if (slot < 0) return -1;
    const value = segment.slots[slot] ?? 0;
    return value < recordBit ? value : segment.tenantAt(value - recordBit);
  }

  #slotOf(segment: Segment, hash: number, space: number, bytes: Uint8Array, start: number, end: number): number {
    const { marks, slots, mask } = segment;
    const mark = markOf(hash);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const seen = marks[slot];
      if (seen === free) return -1;
      if (seen !== mark) continue;
      const value = slots[slot] ?? 0;
      if (value < recordBit) {
        if (space !== 0) continue;
        const page = this.#pages[value >>> pageBits];
        const name = page?.nameRef(value & (pageSize - 1)) ?? 0;
        if (page && (name & 63) === end - start && same(page.names, name >>> 6, bytes, start, end)) return slot;
      } else if (space !== 0 && segment.isRecord(value - recordBit, space, bytes, start, end)) return slot;
    }
  }

  /** The segment of the hash, with room for one more name or key. */
  #roomFor(hash: number, recordBytes: number): Segment {
    const number = hash >>> 24;
    const segment = this.#segment(hash);
    if (!segment.isFull(recordBytes)) return segment;
    const next = new Segment(capacityFor(segment.live + 1), Math.ceil((segment.recordsEnd - segment.wasted + recordBytes) * 1.25) + 64);
    for (let slot = 0; slot < segment.slots.length; slot++) {
      if ((segment.marks[slot] ?? free) <= buried) continue;
      const value = segment.slots[slot] ?? 0;
      if (value < recordBit) {
        const page = this.#page(value);
        const name = page.nameRef(value & (pageSize - 1));
        next.insert(this.#hash(0, page.names, name >>> 6, (name >>> 6) + (name & 63)), value);
      } else {
        const { space, start, end } = segment.recordAt(value - recordBit);
        next.insert(this.#hash(space, segment.records, start, end), next.addRecord(space, segment.tenantAt(value - recordBit), segment.records, start, end));
      }
    }
    this.#segments[number] = next;
    return next;
  }

  /** HalfSipHash-1-3 (Aumasson, Bernstein: SipHash, 2012; the 32-bit variant), with the space as part of the key. */
  #hash(space: number, bytes: Uint8Array, start: number, end: number): number {
    let v0 = this.#seed0;
    let v1 = this.#seed1 ^ space;
    let v2 = 0x6c796765 ^ this.#seed0;
    let v3 = 0x74656462 ^ v1;
    let at = start;
    for (let last = false; !last; at += 4) {
      let word;
      if (at + 4 <= end) word = (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24);
      else {
        word = (end - start) << 24;
        for (let i = at, shift = 0; i < end; i++, shift += 8) word |= (bytes[i] as number) << shift;
        last = true;
      }
      v3 ^= word;
      v0 = (v0 + v1) | 0; v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0; v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0; v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0; v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0; v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2; v2 = (v2 << 16) | (v2 >>> 16);
      v0 ^= word;
    }
    v2 ^= 0xff;
    for (let round = 0; round < 3; round++) {
      v0 = (v0 + v1) | 0; v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0; v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0; v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0; v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0; v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2; v2 = (v2 << 16) | (v2 >>> 16);
    }
    return (v1 ^ v3) >>> 0;
  }
}

/** 2…255, from bits that choose neither the segment nor, below 2^16 slots, the slot. */
const markOf = (hash: number): number => Math.max(2, (hash >>> 16) & 0xff);

/** Slots for so many names and keys: a power of two that they fill to two thirds at the most. */
const capacityFor = (count: number): number => 2 ** Math.max(3, Math.ceil(Math.log2((count + 1) * 1.5)));

function same(stored: Uint8Array, at: number, bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start, j = at; i < end; i++, j++) if (stored[j] !== bytes[i]) return false;
  return true;
}

/** A loop, since names are short and a view of them costs more than their bytes. */
function copy(from: Uint8Array, start: number, end: number, to: Uint8Array, at: number): void {
  for (let i = start, j = at; i < end; i++, j++) to[j] = from[i] as number;
}

const latin1 = (bytes: Uint8Array, start: number, end: number): string => Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString("latin1");

const shared = (bytes: number): SharedArrayBuffer => new SharedArrayBuffer(bytes);

/**
 * 4,096 tenants: 16 bytes each, so that a look meets one cache line for name and entry, and their names in an arena that
 * is compacted when it is full.
 */
class Page {
  readonly #memory = shared(16 * pageSize);
  /** Entries at [2i]. */
  readonly #words = new BigUint64Array(this.#memory);
  /** References to names at [4i + 2]: offset in `names` × 64 + length. */
  readonly #refs = new Uint32Array(this.#memory);
  /** How many keys name the tenant, at [8i + 6]. */
  readonly #counts = new Uint16Array(this.#memory);
  names = new Uint8Array(shared(4096));
  #namesEnd = 0;
  #wasted = 0;

  entry(at: number): number {
    return Number(Atomics.load(this.#words, at * 2));
  }

  hasEntry(at: number): boolean {
    return this.#refs[at * 4] !== 0 || this.#refs[at * 4 + 1] !== 0;
  }

  setEntry(at: number, entry: number): void {
    Atomics.store(this.#words, at * 2, BigInt(entry));
  }

  keyCount(at: number): number {
    return this.#counts[at * 8 + 6] ?? 0;
  }

  addKeys(at: number, count: number): void {
    this.#counts[at * 8 + 6] = this.keyCount(at) + count;
  }

  /** 0 when the place is free. */
  nameRef(at: number): number {
    return this.#refs[at * 4 + 2] ?? 0;
  }

  setName(at: number, bytes: Uint8Array, start: number, end: number): void {
    if (this.#namesEnd + end - start > this.names.length) this.#makeRoom(end - start);
    copy(bytes, start, end, this.names, this.#namesEnd);
    this.#refs[at * 4 + 2] = this.#namesEnd * 64 + end - start;
    this.#namesEnd += end - start;
  }

  dropName(at: number): void {
    this.#wasted += this.nameRef(at) & 63;
    this.#refs[at * 4 + 2] = 0;
  }

  byteLength(): number {
    return this.#memory.byteLength + this.names.byteLength;
  }

  #makeRoom(needed: number): void {
    const next = new Uint8Array(shared(Math.ceil((this.#namesEnd - this.#wasted + needed) * 1.5)));
    if (this.#wasted === 0) next.set(this.names);
    else this.#compactInto(next);
    this.names = next;
  }

  #compactInto(next: Uint8Array): void {
    let end = 0;
    for (let at = 0; at < pageSize; at++) {
      const name = this.nameRef(at);
      if (name === 0) continue;
      copy(this.names, name >>> 6, (name >>> 6) + (name & 63), next, end);
      this.#refs[at * 4 + 2] = end * 64 + (name & 63);
      end += name & 63;
    }
    this.#namesEnd = end;
    this.#wasted = 0;
  }
}

/**
 * A 256th of the index: open addressing with linear probing. `marks` has one byte of each slot's hash, so that a look
 * touches a name or a key's record only when it is almost surely the right one. A slot's value is a tenant's number (its
 * name is in its page), or `recordBit` + the offset of a key's record: tenant (4 bytes), space, length, the key's bytes.
 */
class Segment {
  readonly marks: Uint8Array;
  readonly slots: Uint32Array;
  readonly records: Uint8Array;
  readonly mask: number;
  live = 0;
  recordsEnd = 0;
  wasted = 0;
  #buried = 0;

  constructor(capacity: number, recordBytes = 0) {
    const memory = shared(capacity * 5 + recordBytes);
    this.slots = new Uint32Array(memory, 0, capacity);
    this.marks = new Uint8Array(memory, capacity * 4, capacity);
    this.records = new Uint8Array(memory, capacity * 5, recordBytes);
    this.mask = capacity - 1;
  }

  byteLength(): number {
    return this.slots.buffer.byteLength;
  }

  isFull(recordBytes: number): boolean {
    return (this.live + this.#buried + 1) * 4 > this.slots.length * 3 || this.recordsEnd + recordBytes > this.records.length;
  }

  insert(hash: number, value: number): void {
    let slot = hash & this.mask;
    while ((this.marks[slot] ?? free) > buried) slot = (slot + 1) & this.mask;
    if (this.marks[slot] === buried) this.#buried--;
    this.slots[slot] = value;
    this.marks[slot] = markOf(hash);
    this.live++;
  }

  remove(slot: number): void {
    const endsRun = this.marks[(slot + 1) & this.mask] === free;
    this.marks[slot] = endsRun ? free : buried;
    this.slots[slot] = 0;
    this.live--;
    if (!endsRun) this.#buried++;
  }

  /** @returns the slot value of the new record */
  addRecord(space: number, tenant: number, bytes: Uint8Array, start: number, end: number): number {
    const at = this.recordsEnd;
    const { records } = this;
    records[at] = tenant;
    records[at + 1] = tenant >>> 8;
    records[at + 2] = tenant >>> 16;
    records[at + 3] = tenant >>> 24;
    records[at + 4] = space;
    records[at + 5] = end - start;
    copy(bytes, start, end, records, at + recordHead);
    this.recordsEnd = at + recordHead + end - start;
    return recordBit + at;
  }

  tenantAt(at: number): number {
    const { records } = this;
    return ((records[at] as number) | ((records[at + 1] as number) << 8) | ((records[at + 2] as number) << 16) | ((records[at + 3] as number) << 24)) >>> 0;
  }

  recordAt(at: number): { space: number; start: number; end: number } {
    const start = at + recordHead;
    return { space: this.records[at + 4] as number, start, end: start + (this.records[at + 5] as number) };
  }

  isRecord(at: number, space: number, bytes: Uint8Array, start: number, end: number): boolean {
    return this.records[at + 4] === space && this.records[at + 5] === end - start && same(this.records, at + recordHead, bytes, start, end);
  }
}
