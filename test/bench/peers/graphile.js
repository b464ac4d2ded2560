// graphile.js DATABASE HOW: the workers of graphile-worker, until SIGTERM.
// Settings are those of the page "Performance" of its documentation. HOW: single;
// or shared: tasks that run at the same time share a statement, as with a data
// loader, which the documentation does not say, but which saves most commits.
import { Logger, run } from 'graphile-worker';

const [database, how] = process.argv.slice(2);

// one call of SQL, with an array of ids, for all who ask while the call before is
// under way; when it fails, all of them fail
function loader(sql) {
  let waiting = null;
  let running = Promise.resolve();
  return (id, query) => {
    if (waiting === null) {
      const ids = [];
      const done = running.then(() => new Promise(setImmediate)).then(() => {
        waiting = null;
        return query(sql, [ids]);
      });
      waiting = { ids, done };
      running = done.catch(() => {});
    }
    waiting.ids.push(id);
    return waiting.done;
  };
}

function task(sql) {
  const load = loader(sql);
  return async ({ process }, { withPgClient }) => {
    const query = (text, values) => withPgClient((client) => client.query({ name: text, text, values }));
    await (how === 'shared' ? load(process, query) : query(sql, [[process]]));
  };
}

const runner = await run({
  taskList: { mark: task('SELECT mark_and_send($1)'), complete: task('SELECT complete($1)') },
  preset: {
    worker: {
      connectionString: `postgres:///${database}`,
      concurrentJobs: how === 'shared' ? 200 : 10,
      maxPoolSize: 12,
      localQueue: { size: 500 },
      completeJobBatchDelay: 250,
      failJobBatchDelay: 250,
      logger: new Logger(() => (level, message) => level === 'error' && console.error(message)),
    },
  },
});
console.log('ready');
await runner.promise;
