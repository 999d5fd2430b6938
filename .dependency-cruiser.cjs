// Who may import whom: downwards only. ARCHITECTURE.md draws the same picture.
const src = "^packages/cellplane/src/";
const rule = (name, comment, from, to) => ({ name, comment, severity: "error", from, to });
const nouns = "(cell|claim|tenant|placement|routing|fleet)";

module.exports = {
  forbidden: [
    rule("no-cycles", "Two files that import each other are one file, or a third is missing.", {}, { circular: true }),
    rule("base-knows-nothing", "base is below everything.", { path: `${src}base/` }, { path: src, pathNot: `${src}base/` }),
    rule("pure", "Models, machines and plans see models, machines and plans (and store/model, which is types).", { path: `${src}${nouns}/(model|machine|plan)\\.ts$` }, { path: src, pathNot: `${src}(base/|store/model\\.ts$|${nouns}/(model|machine|plan|table)\\.ts$)` }),
    rule("steps-see-ports", "Steps see the ports of drivers/driver.ts, never an engine.", { path: `${src}${nouns}/` }, { path: `${src}drivers/.+/` }),
    rule("router-stands-alone", "The data plane lives without the control plane.", { path: `${src}router/` }, { path: `${src}(store/store|workflow|http|main|drivers|observe/audit)` }),
    rule("workflow-knows-no-noun", "The runner runs anything.", { path: `${src}workflow/` }, { path: `${src}${nouns}/` }),
    rule("store-knows-no-noun", "", { path: `${src}store/` }, { path: `${src}(${nouns}|workflow|http|router|drivers|main)/` }),
    rule("drivers-see-models", "An engine sees the ports and the models.", { path: `${src}drivers/` }, { path: `${src}(${nouns}/(steps|store|api|cli)\\.ts|workflow/|http/|main/|router/)` }),
    rule("main-is-the-top", "Only composition roots compose.", { path: src, pathNot: `${src}main/` }, { path: `${src}main/` }),
    rule("cell-is-leftmost", "A noun sees only nouns left of it: cell ◄ claim ◄ tenant ◄ placement ◄ routing ◄ fleet.", { path: `${src}cell/` }, { path: `${src}(claim|tenant|placement|routing|fleet)/` }),
    rule("tenant-sees-cell", "", { path: `${src}tenant/` }, { path: `${src}(placement|routing|fleet)/` }),
    rule("placement-sees-cell-and-tenant", "", { path: `${src}placement/` }, { path: `${src}(routing|fleet)/` }),
    rule("routing-is-left-of-fleet", "", { path: `${src}routing/` }, { path: `${src}fleet/` }),
    rule("sdk-imports-nothing", "The tenant's app installs the SDK and nothing else.", { path: "^packages/sdk/src/", pathNot: "\\.test\\.ts$" }, { pathNot: "^packages/sdk/|^node:|^[a-z_/]+$" }),
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    exclude: { path: "(\\.test\\.tsx?$|/dist/|/testing/)" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { extensions: [".ts", ".tsx", ".mjs", ".cjs", ".js"], exportsFields: ["exports"], conditionNames: ["import", "node", "types"] },
  },
};
