import { join } from "node:path";

/** In the cell's folder. */
export const databaseDirectory = (directory: string): string => join(directory, "postgres");
export const appPasswordFile = (directory: string): string => join(databaseDirectory(directory), "app-password");

/** The app's own role and database: not the superuser's, who applies schema steps and moves tenants. */
export const appDatabase = { role: "app", database: "app" };
