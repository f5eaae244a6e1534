// Fathom beside llama.cpp on the same GGUF file and the same machine:
//
//   npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1 \
//     @node-llama-cpp/linux-x64-vulkan@3.22.1
//   scripts/with-adapter lavapipe8 node benches/peers/llama.mjs MODEL.gguf
//
//   --peers cpu,vulkan      llama.cpp's backends to compare with
//   --rounds 5              each round measures Fathom, then each peer
//   --prompt 128            tokens of the prefill
//   --decode 32             tokens decoded, one at a time, after one token
//   --threads 2             of llama.cpp
//   --flash auto            its flash attention: auto, on or off. lavapipe does not come to an end of
//                           compiling that of Vulkan for V4's heads of 512
//   --activations f32,q8    of Fathom, each measured
//   --fathom PATH           the program [target/release/fathom]
//   --modules FOLDER        the folder that holds node_modules [.]
//   --cache FOLDER          where llama.cpp's shaders are kept, apart from ours
//   --json                  print JSON
//
// Prints medians over the rounds, and Fathom's speed over each peer's. llama.cpp takes the first
// Vulkan device, so name one driver (scripts/with-adapter does). On a software adapter its Vulkan
// backend compiles for many minutes before its first answer; the cache folder spares that the next
// time. Prefill includes the first token of the answer on both sides.
import { execFileSync, fork } from "node:child_process";
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    peers: { type: "string", default: "cpu,vulkan" },
    rounds: { type: "string", default: "5" },
    prompt: { type: "string", default: "128" },
    decode: { type: "string", default: "32" },
    threads: { type: "string", default: "2" },
    flash: { type: "string", default: "auto" },
    activations: { type: "string", default: "f32,q8" },
    fathom: { type: "string", default: process.env.FATHOM ?? "target/release/fathom" },
    modules: { type: "string", default: "." },
    cache: { type: "string", default: join(tmpdir(), "llama-cpp-shaders") },
    json: { type: "boolean", default: false },
    serve: { type: "string" },
  },
});
const model = positionals[0];
const flash = { auto: "auto", on: true, off: false }[options.flash];
if (positionals.length !== 1 || flash === undefined) {
  console.error("usage: llama.mjs MODEL.gguf [--peers cpu,vulkan] [--rounds N] [--flash off] [--json] ...");
  process.exit(2);
}
const [promptTokens, decodeTokens] = [Number(options.prompt), Number(options.decode)];

// In a process of its own for each backend: measures once for each message.
async function serve(backend) {
  // Not to go on compiling for a parent that is gone.
  process.once("disconnect", () => process.kill(process.pid, "SIGKILL"));
  const require = createRequire(join(resolve(options.modules), "from-here.js"));
  const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")));
  const gpu = backend === "cpu" ? false : backend;
  const llama = await getLlama({ gpu, build: "never", maxThreads: Number(options.threads) });
  // Without its estimate of memory, which aborts over caches of V4's shape on a GPU.
  const unchecked = { ignoreMemorySafetyChecks: true };
  const gpuLayers = gpu ? "max" : 0;
  const loaded = await llama.loadModel({ modelPath: model, gpuLayers, ...unchecked });
  const size = {
    contextSize: promptTokens + decodeTokens + 8,
    batchSize: promptTokens,
    flashAttention: flash,
    ...unchecked,
  };
  const context = await loaded.createContext({ ...size, threads: Number(options.threads) });
  const sequence = context.getSequence();
  const id = (i) => 100 + ((i * 7919) % 1000);

  // Seconds until the first token after `ids`, and for `more` tokens after that.
  async function run(ids, more) {
    await sequence.clearHistory();
    const start = performance.now();
    let first;
    let count = 0;
    for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true })) {
      first ??= performance.now();
      if (count === more) break;
      count += 1;
    }
    return [(first - start) / 1e3, (performance.now() - first) / 1e3];
  }

  process.on("message", async () => {
    const [prefill] = await run(Array.from({ length: promptTokens }, (_, i) => id(i)), 0);
    const [, decode] = await run([id(0)], decodeTokens);
    process.send({ prefill: promptTokens / prefill, decode: decodeTokens / decode });
  });
  process.send({ device: gpu ? (await llama.getGpuDeviceNames()).join(", ") : "CPU" });
}

function start(backend) {
  mkdirSync(options.cache, { recursive: true });
  const env = { ...process.env, GGML_VK_VISIBLE_DEVICES: "0", MESA_SHADER_CACHE_DIR: options.cache };
  const child = fork(fileURLToPath(import.meta.url), [...process.argv.slice(2), "--serve", backend], {
    env,
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  const answer = () =>
    new Promise((done, failed) => {
      child.once("message", done);
      child.once("exit", (code) => failed(new Error(`llama.cpp, ${backend}: ended with ${code}`)));
    });
  return { backend, child, ready: answer(), measure: () => (child.send("run"), answer()) };
}

function fathom(activations) {
  const tests = ["-p", options.prompt, "-n", options.decode, "-r", "1"];
  const args = ["bench", model, "--activations", activations, ...tests, "--json"];
  const report = JSON.parse(execFileSync(options.fathom, args, { stdio: ["ignore", "pipe", "ignore"] }));
  const speed = (test) => report.speeds.find((s) => s.test === test).mean;
  const rates = { prefill: speed(`pp${promptTokens}`), decode: speed(`tg${decodeTokens}`) };
  return { device: report.device, rates };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function table(cells) {
  const widths = cells[0].map((_, c) => Math.max(...cells.map((row) => row[c].length)));
  const line = (row) => row.map((cell, c) => (c ? cell.padStart(widths[c]) : cell.padEnd(widths[c])));
  return cells.map((row) => line(row).join("  ")).join("\n");
}

async function compare() {
  const peers = options.peers.split(",").map(start);
  const ours = options.activations.split(",").map((activations) => [`Fathom ${activations}`, activations]);
  const samples = Object.fromEntries(ours.map(([name]) => [name, []]));
  const devices = {};
  const log = (what) => console.error(`${new Date().toISOString()} ${what}`);
  for (const peer of peers) {
    devices[peer.backend] = (await peer.ready).device;
    log(`${peer.backend}: loaded on ${devices[peer.backend]}`);
    // Compiles what is compiled at first use.
    await peer.measure();
    log(`${peer.backend}: warm`);
    samples[peer.backend] = [];
  }
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const [name, activations] of ours) {
      const { device, rates } = fathom(activations);
      devices.Fathom = device;
      samples[name].push(rates);
    }
    for (const peer of peers) samples[peer.backend].push(await peer.measure());
    log(`round ${round + 1} of ${options.rounds}`);
  }
  for (const peer of peers) peer.child.disconnect();

  const medians = {};
  for (const [name, of] of Object.entries(samples)) {
    medians[name] = {
      prefill: median(of.map((s) => s.prefill)),
      decode: median(of.map((s) => s.decode)),
    };
  }
  const ratios = {};
  for (const [name] of ours) {
    ratios[name] = {};
    for (const { backend } of peers) {
      ratios[name][backend] = {
        prefill: medians[name].prefill / medians[backend].prefill,
        decode: medians[name].decode / medians[backend].decode,
      };
    }
  }
  if (options.json) {
    const tests = { prompt: promptTokens, decode: decodeTokens, threads: Number(options.threads) };
    console.log(JSON.stringify({ model, ...tests, devices, medians, ratios, samples }, null, 2));
    return;
  }
  const rate = (x) => `${x.toFixed(2)}/s`;
  const both = (r) => `${r.prefill.toFixed(2)} and ${r.decode.toFixed(2)}`;
  const head = ["", "prefill", "decode", ...peers.map((p) => `times ${p.backend}'s`)];
  const rows = Object.entries(medians).map(([name, m]) => {
    const title = ratios[name] ? name : `llama.cpp ${name}`;
    const over = peers.map((p) => (ratios[name] ? both(ratios[name][p.backend]) : ""));
    return [title, rate(m.prefill), rate(m.decode), ...over];
  });
  console.log(`${model}: ${promptTokens} tokens of prompt, ${decodeTokens} decoded`);
  for (const [name, device] of Object.entries(devices)) console.log(`${name}: ${device}`);
  console.log(table([head, ...rows]));
}

if (options.serve) await serve(options.serve);
else {
  await compare();
  process.exit(0);
}
