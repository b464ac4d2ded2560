-- a command, each with a document of its own
local n, first

function init()
  math.randomseed(os.time())
  n, first = 0, math.random(1000000000)
end

function request()
  n = n + 1
  return wrk.format("POST", "/commands/IssueDocument", {["Content-Type"] = "application/json", ["Host"] = "localhost"},
    string.format('{"document_id": "w%d-%d", "customer_id": "C", "amount": 5}', first, n))
end
