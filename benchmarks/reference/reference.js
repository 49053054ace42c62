// The reference implementation as a process. It answers each line of JSON with a line of JSON.
//
//   {"do": "load", "model": folder/model.json, "config": {...}}  gives a network's index
//   {"do": "image", "file": raw RGBA bytes, "width": w, "height": h}  gives an image's index
//   {"do": "maps", "folder": raw float32 maps, "height": h, "width": w}  gives the maps' index
//   {"do": "estimate", "net": i, "image": i, "count": n}  n times image -> poses
//   {"do": "decode", "maps": i, "stride": s, "max": m, "threshold": t, "radius": r, "count": n}
//
// Answers of the last two: {"ms": [...], "poses": [...]}.

const fs = require('fs');
const http = require('http');
const path = require('path');
const readline = require('readline');

const tf = require('@tensorflow/tfjs-core');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const posenet = require('@tensorflow-models/posenet');

const CHANNELS = [17, 34, 32, 32];

const nets = [];
const images = [];
const maps = [];

// Graph models are fetched over HTTP: from a server of our own, on a port that the system picks.
function serve(folder) {
  const server = http.createServer((request, response) => {
    const file = path.join(folder, path.basename(decodeURIComponent(request.url)));
    fs.readFile(file, (error, bytes) => {
      response.writeHead(error ? 404 : 200);
      response.end(bytes);
    });
  });
  return new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve(server)));
}

async function load({model, config}) {
  const server = await serve(path.dirname(model));
  const modelUrl = `http://127.0.0.1:${server.address().port}/${path.basename(model)}`;
  nets.push(await posenet.load({...config, modelUrl}));
  server.close();
  return nets.length - 1;
}

function addImage({file, width, height}) {
  // As a canvas gives it: RGBA, 8 bits.
  images.push({data: new Uint8Array(fs.readFileSync(file)), width, height});
  return images.length - 1;
}

function addMaps({folder, height, width}) {
  maps.push(CHANNELS.map((channels, i) => {
    const bytes = fs.readFileSync(path.join(folder, `${i}.f32`));
    const values = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4).slice();
    return tf.buffer([height, width, channels], 'float32', values);
  }));
  return maps.length - 1;
}

async function timed(count, run) {
  const ms = [];
  let poses;
  for (let i = 0; i < count; i++) {
    const started = process.hrtime.bigint();
    poses = await run();
    ms.push(Number(process.hrtime.bigint() - started) / 1e6);
  }
  return {ms, poses};
}

const requests = {
  load,
  image: addImage,
  maps: addMaps,
  estimate: ({net, image, count}) =>
      timed(count, () => nets[net].estimateMultiplePoses(images[image])),
  decode: ({maps: index, stride, max, threshold, radius, count}) =>
      timed(count, () => posenet.decodeMultiplePoses(...maps[index], stride, max, threshold, radius)),
};

async function main() {
  wasm.setWasmPaths(path.join(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm')), '/'));
  await tf.setBackend('wasm');
  await tf.ready();
  const about = {
    posenet: posenet.version,
    tfjs: tf.version_core,
    node: process.version,
    backend: tf.getBackend(),
    simd: await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT'),
    threads: await tf.env().getAsync('WASM_HAS_MULTITHREAD_SUPPORT'),
  };
  console.log(JSON.stringify(about));
  for await (const line of readline.createInterface({input: process.stdin})) {
    const request = JSON.parse(line);
    console.log(JSON.stringify(await requests[request.do](request)));
  }
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
