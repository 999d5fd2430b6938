// The command line's contract is in ../cli/command.ts; import that. (This file goes once nobody imports it.)
export * from "../cli/command.ts";
