// boss.js DATABASE HOW: the workers of pg-boss, until SIGTERM. HOW: notify, they
// listen; or poll. A batch, the rows that it changes and the jobs that follow are
// one commit. Queues have tables of their own, as advised for large ones.
import { PgBoss } from 'pg-boss';

const [database, how] = process.argv.slice(2);
const notify = how === 'notify';
const boss = new PgBoss({
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  database,
  useListenNotify: notify,
});
boss.on('error', console.error);
await boss.start();

const options = {
  batchSize: 500,
  pollingIntervalSeconds: 0.5,
  burstWhenBatchFull: true,
  transactional: true,
};
const ids = (jobs) => jobs.map((job) => job.data.process);

for (const name of ['mark', 'complete']) {
  await boss.createQueue(name, { partition: true, notify });
}
await boss.work('mark', options, async (jobs, tx) => {
  const { rows } = await tx.executeSql('SELECT unnest(mark($1)) AS process', [ids(jobs)]);
  await boss.insert('complete', rows.map((data) => ({ data })), { db: tx });
});
await boss.work('complete', options, async (jobs, tx) => {
  await tx.executeSql('SELECT complete($1)', [ids(jobs)]);
});
console.log('ready');
process.on('SIGTERM', () => boss.stop().then(() => process.exit(0)));
