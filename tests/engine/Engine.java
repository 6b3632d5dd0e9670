import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import io.siddhi.core.SiddhiAppRuntime;
import io.siddhi.core.SiddhiManager;
import io.siddhi.core.event.Event;
import io.siddhi.core.stream.output.StreamCallback;
import io.siddhi.core.util.transport.InMemoryBroker;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/**
 * The engine's own source mappers, one line in and one line out on the standard streams.
 *
 * <p>"app BASE64" replaces the app by the one of this definition, which has a stream S and an in-memory source on the
 * topic t; the answer is "ok", or "refused" and why. "row BASE64" gives the source a message; the answer is the JSON
 * array of the events that S got from it, each an array of [Java type, value].
 */
final class Engine {
  private static final Gson GSON = new GsonBuilder().serializeNulls().disableHtmlEscaping().create();
  private static final List<Object> EVENTS = new ArrayList<>();
  private static SiddhiAppRuntime app;

  public static void main(String[] arguments) throws Exception {
    PrintStream out = new PrintStream(System.out, true, "UTF-8");
    System.setOut(System.err); // the mappers log there why they drop a message
    SiddhiManager manager = new SiddhiManager();
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      String argument = new String(Base64.getDecoder().decode(line.substring(4)), StandardCharsets.UTF_8);
      out.println(line.startsWith("app ") ? start(manager, argument) : send(argument));
    }
    System.exit(0);
  }

  private static String start(SiddhiManager manager, String definition) {
    if (app != null) {
      app.shutdown();
      app = null;
    }
    try {
      app = manager.createSiddhiAppRuntime(definition);
      app.addCallback("S", new StreamCallback() {
        @Override
        public void receive(Event[] events) {
          for (Event event : events) {
            EVENTS.add(described(event));
          }
        }
      });
      app.start();
      return "ok";
    } catch (RuntimeException exception) {
      return "refused " + String.valueOf(exception.getMessage()).replaceAll("\\s+", " ");
    }
  }

  private static String send(String message) {
    EVENTS.clear();
    try {
      InMemoryBroker.publish("t", message);
    } catch (Exception exception) {
      System.err.println("not taken: " + exception);
    }
    return GSON.toJson(EVENTS);
  }

  private static List<Object> described(Event event) {
    List<Object> values = new ArrayList<>();
    for (Object value : event.getData()) {
      // A double in hexadecimal keeps every digit.
      Object shown = value instanceof Double || value instanceof Float
          ? Double.toHexString(((Number) value).doubleValue()) : value;
      values.add(List.of(value == null ? "null" : value.getClass().getSimpleName(),
          shown == null ? "" : shown));
    }
    return values;
  }
}
