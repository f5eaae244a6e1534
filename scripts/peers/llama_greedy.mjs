// How llama.cpp goes on with prompts, and how sure it is at each step: makes the fixtures
// tests/fixtures/smollm2/greedy_TYPE.json for files written by `fathom quantize --type TYPE`:
//
//   npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//   node scripts/peers/llama_greedy.mjs MODEL.gguf tests/fixtures/smollm2/prompts.json OUT.json
//
// from the folder that holds node_modules. Runs on llama.cpp's CPU backend. Prompts are texts, or
// questions, which the model's chat template puts into the form of its conversations. Writes the
// model's SHA-256 and, for each prompt, its token ids and 32 steps: the likeliest token, which is
// taken, and the ones after it, each with its probability.
import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const STEPS = 32;
const TOP = 3;
const SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";

const [modelPath, promptsPath, outPath] = process.argv.slice(2);
if (!outPath) {
  console.error("usage: llama_greedy.mjs MODEL.gguf PROMPTS.json OUT.json");
  process.exit(2);
}
const require = createRequire(join(process.cwd(), "from-here.js"));
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")));

const llama = await getLlama({ gpu: false, build: "never" });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 512, batchSize: 512, threads: 1 });
const sequence = context.getSequence();

// The whole distribution: no sampler may cut it.
const wanted = { generateNext: { probabilities: true, options: { temperature: 1, topK: 0, topP: 1 } } };

function prompt_ids({ text, chat }) {
  if (text !== undefined) return model.tokenize(text, false);
  const turns = [["system", SYSTEM], ["user", chat]];
  const written = turns.map(([role, said]) => `<|im_start|>${role}\n${said}<|im_end|>\n`);
  return model.tokenize(`${written.join("")}<|im_start|>assistant\n`, true);
}

async function go_on(prompt) {
  await sequence.clearHistory();
  const ids = prompt_ids(prompt);
  const steps = [];
  let fed = ids.map((id, i) => (i + 1 < ids.length ? id : [id, wanted]));
  while (steps.length < STEPS) {
    const results = await sequence.controlledEvaluate(fed);
    // The likeliest come first.
    const top = [...results.at(-1).next.probabilities.entries()].slice(0, TOP);
    steps.push(top.map(([id, p]) => [id, Number(p.toPrecision(6))]));
    fed = [[top[0][0], wanted]];
  }
  const name = prompt.text ?? prompt.chat;
  console.log(`${JSON.stringify(name)}: ${model.detokenize(steps.map((s) => s[0][0]), true)}`);
  return { ...prompt, ids, steps };
}

const prompts = [];
for (const prompt of JSON.parse(readFileSync(promptsPath, "utf8"))) prompts.push(await go_on(prompt));
const sha256 = createHash("sha256").update(readFileSync(modelPath)).digest("hex");
const lines = prompts.map((prompt) => `  ${JSON.stringify(prompt)}`);
writeFileSync(outPath, `{"sha256": "${sha256}", "prompts": [\n${lines.join(",\n")}\n]}\n`);
process.exit(0);
