import { createHash, randomBytes } from "node:crypto";

/** Tells people and secret scanners what they have found. */
const prefix = "cpt_";

/** 256 random bits. */
export const newSecret = (): string => prefix + randomBytes(32).toString("base64url");

/** What is stored of it: so long and random a secret needs no salt and no slow hash. */
export const hashOf = (secret: string): Buffer => createHash("sha256").update(secret).digest();
