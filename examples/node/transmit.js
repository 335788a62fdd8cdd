// A client that knows the proto file and nothing of hardpath: describe the model, transmit, stream, sweep.
//
//     hardpath serve runs/demo/bundle &
//     cd examples/node && npm install && node transmit.js 127.0.0.1:50051
//
// --model names the model where the server holds several, --ca a file with the authority of a server with TLS.
//
// A call that the server refuses because it is busy is tried again after the time in RetryInfo; gRPC's own retries would
// not wait for it.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import protobuf from "protobufjs";

const PROTO = fileURLToPath(new URL("../../proto/hardpath/v1/link.proto", import.meta.url));
const { LinkService } = grpc.loadPackageDefinition(loadSync(PROTO, { longs: Number, enums: String, defaults: true })).hardpath.v1;

// The parts of google.rpc that say when to try again.
const { Status, RetryInfo } = protobuf.parse(`
  syntax = "proto3";
  message Any { string type_url = 1; bytes value = 2; }
  message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
  message Duration { int64 seconds = 1; int32 nanos = 2; }
  message RetryInfo { Duration retry_delay = 1; }
`).root;

const options = { model: { type: "string", default: "" }, ca: { type: "string" } };
const { values: given, positionals } = parseArgs({ options, allowPositionals: true });
const [address = "127.0.0.1:50051"] = positionals;
const credentials = given.ca ? grpc.credentials.createSsl(readFileSync(given.ca)) : grpc.credentials.createInsecure();
const client = new LinkService(address, credentials, { "grpc.max_receive_message_length": 64 * 2 ** 20 });

/** One call, within `seconds` in all; tried again while the server says when. */
async function call(method, request, seconds = 10) {
  const deadline = Date.now() + 1000 * seconds;
  for (;;) {
    try {
      return await new Promise((resolve, reject) =>
        client[method](request, { deadline }, (error, reply) => (error ? reject(error) : resolve(reply))),
      );
    } catch (error) {
      const pause = error.code === grpc.status.RESOURCE_EXHAUSTED ? retryAfter(error) : undefined;
      if (pause === undefined || Date.now() + pause >= deadline) throw error;
      await sleep(pause * (1 + 0.2 * Math.random()));
    }
  }
}

/** Milliseconds of the google.rpc.RetryInfo in a status; undefined where there is none. */
function retryAfter(error) {
  const [status] = error.metadata.get("grpc-status-details-bin");
  const details = status ? Status.decode(status).details : [];
  const found = details.find((detail) => detail.typeUrl.endsWith("/google.rpc.RetryInfo"));
  if (!found) return undefined;
  const { seconds, nanos } = RetryInfo.decode(found.value).retryDelay;
  return 1000 * Number(seconds) + 1e-6 * nanos;
}

/** A float32 array as a tensor, and back. */
const toTensor = (shape, values) => ({
  dataType: "DATA_TYPE_FLOAT32",
  shape,
  raw: Buffer.from(Float32Array.from(values).buffer),
});
const fromTensor = ({ raw }) => Array.from({ length: raw.length / 4 }, (_, index) => raw.readFloatLE(4 * index));

const { model, maxBatch, channels } = await call("getModel", { model: given.model });
const [input] = model.transmitter.inputs;
const shape = input.shape.slice(1);
const size = shape.reduce((a, b) => a * b, 1);
console.log(`${model.name} version ${model.version} takes ${input.name} [${shape}] in [${input.low}, ${input.high}],`);
console.log(`at most ${maxBatch} samples in a request, over ${channels.join(", ")}`);

/** A Transmit request for `count` samples of random numbers in the range that the model states. */
function request(count, settings) {
  const values = Array.from({ length: count * size }, () => input.low + (input.high - input.low) * Math.random());
  const inputs = { [input.name]: toTensor([count, ...shape], values) };
  return { model: given.model, inputs, settings, tensorFormat: "TENSOR_FORMAT_RAW" };
}

const reply = await call("transmit", { ...request(4, { snrDb: 9, channel: "rayleigh", seed: 1 }), includeSymbols: true });
for (const [row, { className, probability }] of reply.decoded.decisions.entries()) {
  console.log(`sample ${row}: ${className} (${probability.toFixed(3)}), ${reply.bitErrors[row]} bits wrong`);
}
console.log("the first symbol came as", fromTensor(reply.received.y).slice(0, 2).map((part) => part.toFixed(3)).join(" "));

try {
  await call("transmit", request(1, { snrDb: 99 }));
} catch (error) {
  console.log(`refused: ${error.details}`);
}

const stream = client.transmitStream();
for (let index = 0; index < 5; index++) stream.write({ request: request(8, { snrDb: 3 * index, seed: 1 }) });
stream.end();
for await (const { index, response, failure } of stream) {
  const wrong = response?.bitErrors.reduce((a, b) => a + b, 0);
  console.log(`stream, request ${index}: ${failure ? failure.message : `${wrong} bits wrong at ${response.settings.snrDb} dB`}`);
}

const { inputs } = request(50, {});
for await (const { point } of client.sweep({ model: given.model, inputs, settings: { seed: 1 }, snrDb: [0, 6, 12], draws: 2 })) {
  console.log(`sweep, ${point.snrDb} dB: as without noise ${point.accuracy.value.toFixed(3)}`);
}
client.close();
