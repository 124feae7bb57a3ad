// A sample policy server in Node.js: it keeps the mean concurrency at a target, with some pods to spare while load rises. It is
// the same policy as ../policy-go. Try it:
//
//   npm ci && node server.js --listen 127.0.0.1:9090
//   sluice decide --policy grpc --param address=127.0.0.1:9090 --param 'parameters={"target":10,"spare":2}' < observations.jsonl
'use strict';

const path = require('node:path');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const proto = path.join(__dirname, '../../../wire/policy/policy.proto');
const { sluice } = grpc.loadPackageDefinition(loader.loadSync(proto, { defaults: true, longs: Number }));

const fault = (code, message) => ({ code, message });

// decide answers ceil(concurrency / target), plus the spare pods while concurrency is higher than the last time. What it has to
// remember goes out as state and comes back with the next request, so the server may be restarted at any time.
function decide(request) {
  const { target = 10, spare = 0 } = JSON.parse(request.parameters || '{}');
  if (!(target > 0)) throw fault(grpc.status.INVALID_ARGUMENT, `target = ${target}: want more than 0`);
  const { last = Infinity } = request.state.length ? JSON.parse(request.state.toString()) : {};
  const signal = request.observation.signals.find((s) => s.name === 'concurrency' && s.window === 60 && s.known);
  if (!signal) return { reason: 'NoData', message: 'concurrency over 60s is unknown', state: request.state };
  const rising = signal.value > last;
  return {
    replicas: Math.ceil(signal.value / target) + (rising ? spare : 0),
    valid: true,
    reason: rising ? 'Rising' : 'Steady',
    message: `${signal.value} requests at ${target} a pod`,
    terms: [{ name: 'concurrency', value: signal.value }],
    state: Buffer.from(JSON.stringify({ last: signal.value })),
  };
}

const server = new grpc.Server();
server.addService(sluice.policy.v1.Policy.service, {
  Decide(call, done) {
    try {
      done(null, decide(call.request));
    } catch (err) {
      done(err.code === undefined ? fault(grpc.status.INVALID_ARGUMENT, err.message) : err);
    }
  },
});

const { values } = parseArgs({ options: { listen: { type: 'string', default: '127.0.0.1:9090' } } });
server.bindAsync(values.listen, grpc.ServerCredentials.createInsecure(), (err, port) => {
  if (err) {
    console.error('policy-node:', err.message);
    process.exit(1);
  }
  console.log('listening on', values.listen.replace(/:0$/, `:${port}`));
});
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => server.tryShutdown(() => process.exit(0)));
