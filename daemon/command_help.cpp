#include "daemon/command_help.h"

namespace caravan {

namespace {

struct Examples {
  std::string_view command, text;
};

constexpr Examples kExamples[] = {
    {"run",
     "  caravan run configs/demo/demo.gguf -p \"Once upon a time\" -n 64\n"
     "  caravan run MODEL -p \"The capital of France is\" --temp 0 --json\n"
     "  caravan run MODEL -p \"Hello\" --peers 3 --codec f32     the same text, through three processes\n"
     "  caravan run MODEL --ids 1,2,3 -n 0 --logits out.f32    only the prompt's logits\n"
     "Ctrl-C ends it at once, with exit code 130."},
    {"serve",
     "  caravan serve MODEL                                    API on 127.0.0.1:8080, peers on port 7420\n"
     "  caravan serve MODEL --api 0.0.0.0:8080 --api-key KEY   for other machines too\n"
     "  caravan invite                                         then: a ticket for one more machine\n"
     "  curl http://127.0.0.1:8080/v1/chat/completions -d \\\n"
     "    '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}'\n"
     "Peers that join take layers off this machine; Ctrl-C ends."},
    {"join",
     "  caravan join caravan1:...                              with what `caravan invite` printed; the "
     "weights\n"
     "                                                         it hosts come from the head\n"
     "  caravan join caravan1:... --fetch-limit 10MiB/s        no faster than that\n"
     "  caravan join caravan1:... --model MODEL                with the file, where it is here already\n"
     "  caravan join - < ticket.txt                            the ticket shows in no list of processes\n"
     "A ticket is good once. The same machine may come back with it, since the head then knows its key."},
    {"invite",
     "  caravan invite                                         a ticket, good for an hour\n"
     "  caravan invite --minutes 5 --state DIR                 for the head that runs with --state DIR"},
    {"demo",
     "  caravan demo                                           three peers and the model that ships\n"
     "  caravan demo MODEL --peers 2 --api 127.0.0.1:0         another model, any free port\n"
     "Measures nothing: status tells what was expected once `caravan calibrate` has run."},
    {"status",
     "  caravan status                                         the head of the default state folder\n"
     "  caravan status --json --state DIR                      everything, for scripts\n"
     "  caravan status --api HOST:PORT --api-key KEY           of another machine"},
    {"chat",
     "  caravan chat\n"
     "  caravan chat --system \"You are brief.\" --temp 0.7\n"
     "  echo \"Who are you?\" | caravan chat                     one question, the answer on standard "
     "output\n"
     "/reset begins anew, /quit ends, Ctrl-C stops an answer."},
    {"quantize",
     "  caravan quantize HF_FOLDER model-q8_0.gguf\n"
     "  caravan quantize model-f16.gguf model-q4_0.gguf --type q4_0\n"
     "OUT appears only when it is whole, in place of an older GGUF file; --force writes over any file."},
    {"tokenize",
     "  caravan tokenize MODEL \"Once upon a time\" --json\n"
     "  caravan tokenize MODEL \"<s>text\" --bos --special\n"
     "  caravan tokenize MODEL --decode 1,2,3"},
    {"inspect",
     "  caravan inspect MODEL\n"
     "  caravan inspect MODEL --json"},
    {"template",
     "  caravan template FILE.jinja INPUT.json\n"
     "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | caravan template FILE.jinja -"},
    {"calibrate",
     "  caravan calibrate                                      seconds, once; then what is kept\n"
     "  caravan calibrate MODEL                                again, with the disk that holds MODEL\n"
     "  caravan calibrate --json --state DIR\n"
     "serve and join do it at their first start, plan where it must; demo goes by what is kept, run has no\n"
     "use for it."},
    {"plan",
     "  caravan plan MODEL --ram 2GiB --context 8k             what stays, what is streamed, how fast\n"
     "  caravan plan MODEL --ram 50% --kv-type f16 --sequences 4\n"
     "  caravan plan MODEL --ram 500MB --json                  for scripts\n"
     "Nothing is loaded. Of a .gguf file the header is enough: the first megabytes of a download will do."},
    {"bench",
     "  caravan bench                                          this machine and a hop\n"
     "  caravan bench MODEL --json                             and a model's prefill and decode\n"
     "  caravan bench MODEL --pages --state DIR                when RAM does not hold it, and after kill -9\n"
     "  caravan bench MODEL --pages --repeats 1 --seconds 0.1  a first look\n"
     "--pages takes minutes, shows what it measures, and Ctrl-C ends it."},
    {"import",
     "  caravan import model.gguf                              its name and hashes; the bytes stay there\n"
     "  caravan import HF_FOLDER --copy --disk 50%             its weights, too, into the state folder\n"
     "  caravan run NAME -p \"Hello\"                           then, wherever a model is asked for\n"
     "Ctrl-C ends it; the next import goes on from there."},
    {"ls",
     "  caravan ls\n"
     "  caravan ls --json --state DIR                          also beside a daemon that runs"},
    {"verify",
     "  caravan verify                                         every model; exit code 1 if one is bad\n"
     "  caravan verify NAME\n"
     "A bad copy is read again from the original file while that hashes right."},
    {"rm",
     "  caravan rm NAME                                        weights that other models use stay\n"
     "  caravan rm --unused                                    what unfinished imports left"},
};

}  // namespace

std::string about_text() {
  return "caravan runs a large language model on what you own: on this machine alone, or as a ring of "
         "peers.\n"
         "\n"
         "  caravan run MODEL -p \"Once upon a time\"     generate text here and exit\n"
         "  caravan serve MODEL                         serve the OpenAI-compatible API\n"
         "  caravan invite                              print a ticket for another machine\n"
         "  caravan join TICKET                         (there) lend that machine to the ring\n"
         "  caravan COMMAND --help                      every flag of a command, with examples\n";
}

std::string examples_of(std::string_view command) {
  for (const Examples& one : kExamples)
    if (one.command == command) return "Examples:\n" + std::string(one.text) + "\n";
  return "";
}

}  // namespace caravan
