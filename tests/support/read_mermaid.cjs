// Reads diagrams, each a line of JSON, with the Mermaid in the folder that is named; answers each with a line of JSON.
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline");
const { createContext, runInContext } = require("node:vm");

const page = createContext({});
const stubs = ["log", "measureText", "measureTextFull", "measureForeignObject"]; // nothing is drawn, so nothing has a size
for (const name of stubs) page[`__${name}`] = () => 0;
for (const file of ["path_bbox.js", "dom_shim.js", "mermaid.js"]) {
    runInContext(readFileSync(`${process.argv[2]}/${file}`, "utf8"), page);
}
const mermaid = runInContext("__esbuild_esm_mermaid_nm.mermaid.default", page);
mermaid.initialize({});

async function read(text) {
    const { type, db } = await mermaid.mermaidAPI.getDiagramFromText(text);
    return { type, boxes: [...db.getVertices().values()], arrows: db.getEdges(), groups: db.getSubGraphs() };
}

async function main() {
    for await (const line of createInterface({ input: process.stdin })) {
        const answer = await read(JSON.parse(line)).catch((error) => ({ error: String(error) }));
        process.stdout.write(`${JSON.stringify(answer)}\n`);
    }
}

main();
