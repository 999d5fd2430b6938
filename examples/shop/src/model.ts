/** What the shop deals in, and how its input is checked. Amounts are whole cents. */

export interface Item {
  sku: string;
  quantity: number;
  priceCents: number;
}

export interface NewOrder {
  /** Name of the customer's account. */
  account: string;
  items: Item[];
}

export interface Order {
  id: number;
  account: string;
  state: "placed" | "paid" | "cancelled";
  totalCents: number;
  /** +1 with every change. */
  version: number;
}

/** What became of a write. */
export interface Applied {
  operationId: string;
  /** True when the operation had been applied before and this request changed nothing. */
  replayed: boolean;
  order: Order | null;
}

/** What is seen when everything is added up; all zero when nothing was lost, torn or applied twice. */
export interface Audit {
  operations: number;
  /** Sum of all entries. */
  entriesCents: number;
  /** Operations whose entries do not sum up to zero. */
  operationsOff: number;
  /** Accounts whose balance is not the sum of their entries. */
  accountsOff: number;
  /** Orders whose total is not that of their lines, or whose entries are not what their state says. */
  ordersOff: number;
  /** Events without their operation. */
  eventsStray: number;
}

/** A refusal the caller can do something about. */
export class ShopError extends Error {
  override name = "ShopError";
  readonly status: 400 | 404 | 409 | 413;
  readonly code: string;

  constructor(status: ShopError["status"], code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const invalid = (message: string): ShopError => new ShopError(400, "invalid_input", message);
const whole = (value: unknown, min: number, max: number): value is number => Number.isInteger(value) && (value as number) >= min && (value as number) <= max;
const text = (value: unknown, max: number): value is string => typeof value === "string" && value.length >= 1 && value.length <= max;

export function operationIdOf(value: unknown): string {
  if (!text(value, 100)) throw invalid("every write carries an operation id of 1 to 100 characters in the header idempotency-key");
  return value;
}

export function accountNameOf(body: Record<string, unknown>): string {
  const { name } = body;
  if (!text(name, 100)) throw invalid("name: 1 to 100 characters");
  if (name === "cash" || name === "revenue") throw invalid(`name: ${name} is the shop's own account`);
  return name;
}

export function itemsOf(body: Record<string, unknown>): Item[] {
  const { items } = body;
  if (!Array.isArray(items) || items.length < 1 || items.length > 50) throw invalid("items: 1 to 50 of them");
  return items.map((item: Record<string, unknown> | null, i) => {
    const { sku, quantity, priceCents } = item ?? {};
    if (!text(sku, 64)) throw invalid(`items[${i}].sku: 1 to 64 characters`);
    if (!whole(quantity, 1, 1000)) throw invalid(`items[${i}].quantity: a whole number from 1 to 1000`);
    if (!whole(priceCents, 0, 10_000_000)) throw invalid(`items[${i}].priceCents: a whole number from 0 to 10000000`);
    return { sku, quantity, priceCents };
  });
}

export function newOrderOf(body: Record<string, unknown>): NewOrder {
  const { account } = body;
  if (!text(account, 100)) throw invalid("account: the name of a customer's account");
  return { account, items: itemsOf(body) };
}

export const totalOf = (items: readonly Item[]): number => items.reduce((sum, item) => sum + item.quantity * item.priceCents, 0);
