// Reads the whole updates stream with the nats client of npm and writes the payloads, one after the other, to a file.
// usage: node read.js NATS_URL OUT_FILE; prints one JSON object.
const fs = require('fs');
const { connect } = require('nats');

(async () => {
  const [url, out] = process.argv.slice(2);
  const nc = await connect({ servers: url });
  const jsm = await nc.jetstreamManager();
  const info = await jsm.streams.info('ARANCINI_UPDATES');
  const consumer = await nc.jetstream().consumers.get('ARANCINI_UPDATES');  // ordered, leaves nothing behind
  const file = fs.openSync(out, 'w');
  let messages = 0, updates = 0;
  const subjects = new Set(), formats = new Set();
  if (info.state.messages > 0) {
    const stream = await consumer.consume();
    for await (const m of stream) {
      fs.writeSync(file, m.data);
      messages += 1;
      updates += Number(m.headers.get('Arancini-Count'));
      formats.add(m.headers.get('Arancini-Format'));
      subjects.add(m.subject);
      if (m.seq >= info.state.last_seq) break;
    }
  }
  fs.closeSync(file);
  console.log(JSON.stringify({ messages, updates, formats: [...formats], subjects: [...subjects].sort() }));
  await nc.close();
})().catch((e) => { console.error(e); process.exit(1); });
