// Verifies requests with npm's standardwebhooks: reads [{secret, headers, body}, …], prints true or why not of each.
const {Webhook} = require('standardwebhooks')

const cases = JSON.parse(require('fs').readFileSync(0, 'utf8'))
const verified = cases.map(({secret, headers, body}) => {
  try {
    return typeof new Webhook(secret).verify(body, headers) === 'object'
  } catch (error) {
    return String(error.message)
  }
})
process.stdout.write(JSON.stringify(verified))
