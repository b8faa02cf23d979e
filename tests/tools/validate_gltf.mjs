// Print the Khronos validator's JSON report on one .glb file: node validate_gltf.mjs FILE
import { readFileSync } from "node:fs";
import validator from "gltf-validator";

const path = process.argv[2];
const report = await validator.validateBytes(new Uint8Array(readFileSync(path)), { uri: path });
console.log(JSON.stringify(report.issues));
