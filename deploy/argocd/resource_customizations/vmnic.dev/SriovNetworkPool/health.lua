-- Health of a SriovNetworkPool from its conditions.
local function condition(kind)
  for _, one in ipairs((obj.status or {}).conditions or {}) do
    if one.type == kind then
      return one
    end
  end
  return {}
end

local function health(status, message)
  return { status = status, message = message or "" }
end

if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "the controller has not looked at it yet")
end
local ready = condition("Ready")
for _, kind in ipairs({ "Stalled", "Conflict" }) do
  if condition(kind).status == "True" then
    return health("Degraded", condition(kind).message)
  end
end
if ready.reason == "Paused" then
  return health("Suspended", ready.message)
end
if ready.status == "True" then
  return health("Healthy", ready.message)
end
return health("Progressing", ready.message)
